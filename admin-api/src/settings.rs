//! Settings as JSON: a missing field gets the node's default, `null` switches a limit off.

use flotilla_model::name::{Kind, Name};
use flotilla_model::settings::{QueueSettings, TopicSettings};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::AdminError;

/// A name within JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueName {
    /// The queue's own if it is missing.
    namespace: Option<String>,
    name: String,
}

/// Body of `PUT /api/v1/topics/{name}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicSettingsBody {
    #[serde(deserialize_with = "given")]
    retention_ms: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    retention_bytes: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    retention_messages: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    dedup_window_ms: Option<u64>,
    #[serde(deserialize_with = "given")]
    cursor_idle_ms: Option<u64>,
}

/// Body of `PUT /api/v1/queues/{name}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettingsBody {
    #[serde(deserialize_with = "given")]
    retention_ms: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    messages_max: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    bytes_max: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    receive_count_max: Option<u32>,
    #[serde(deserialize_with = "given")]
    dead_letter: Option<Option<QueueName>>,
    #[serde(deserialize_with = "given")]
    dedup_window_ms: Option<u64>,
}

/// Tells a missing field from one that is `null`, since serde calls this only for fields that are
/// there. Where `null` means nothing, `T` itself refuses it.
fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl TopicSettingsBody {
    /// The whole settings that this body stands for.
    pub fn resolve(self, defaults: &TopicSettings) -> Result<TopicSettings, AdminError> {
        let settings = TopicSettings {
            retention_ms: self.retention_ms.unwrap_or(defaults.retention_ms),
            retention_bytes: self.retention_bytes.unwrap_or(defaults.retention_bytes),
            retention_messages: self
                .retention_messages
                .unwrap_or(defaults.retention_messages),
            dedup_window_ms: self.dedup_window_ms.unwrap_or(defaults.dedup_window_ms),
            cursor_idle_ms: self.cursor_idle_ms.unwrap_or(defaults.cursor_idle_ms),
        };
        at_least_one("retention_ms", settings.retention_ms)?;
        at_least_one("retention_bytes", settings.retention_bytes)?;
        at_least_one("retention_messages", settings.retention_messages)?;
        at_least_one("cursor_idle_ms", Some(settings.cursor_idle_ms))?;
        Ok(settings)
    }
}

impl QueueSettingsBody {
    /// The whole settings that this body stands for.
    pub fn resolve(
        self,
        queue: &Name,
        defaults: &QueueSettings,
    ) -> Result<QueueSettings, AdminError> {
        let dead_letter = match self.dead_letter {
            None => defaults.dead_letter.clone(),
            Some(None) => None,
            Some(Some(QueueName { namespace, name })) => {
                let namespace = namespace.as_deref().unwrap_or(queue.namespace());
                Some(Name::new(namespace, Kind::Queue, &name)?)
            }
        };
        let settings = QueueSettings {
            retention_ms: self.retention_ms.unwrap_or(defaults.retention_ms),
            messages_max: self.messages_max.unwrap_or(defaults.messages_max),
            bytes_max: self.bytes_max.unwrap_or(defaults.bytes_max),
            receive_count_max: self.receive_count_max.unwrap_or(defaults.receive_count_max),
            dead_letter,
            dedup_window_ms: self.dedup_window_ms.unwrap_or(defaults.dedup_window_ms),
        };
        at_least_one("retention_ms", settings.retention_ms)?;
        at_least_one("messages_max", settings.messages_max)?;
        at_least_one("bytes_max", settings.bytes_max)?;
        if settings.dead_letter.as_ref() == Some(queue) {
            return Err(AdminError::Invalid {
                what: "dead_letter is the queue itself; a message would never leave it".to_owned(),
            });
        }
        Ok(settings)
    }
}

/// A limit of 0 would drop or refuse everything, which nobody means.
fn at_least_one(field: &str, value: Option<u64>) -> Result<(), AdminError> {
    match value {
        Some(0) => Err(AdminError::Invalid {
            what: format!(
                "{field} is 0; allowed: 1 and more, or null for no limit where it is one"
            ),
        }),
        _ => Ok(()),
    }
}

/// Settings of a topic in answers; the same fields as in requests.
#[derive(Debug, Serialize)]
pub struct TopicSettingsView {
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    retention_messages: Option<u64>,
    dedup_window_ms: u64,
    cursor_idle_ms: u64,
}

impl From<TopicSettings> for TopicSettingsView {
    fn from(settings: TopicSettings) -> Self {
        Self {
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            retention_messages: settings.retention_messages,
            dedup_window_ms: settings.dedup_window_ms,
            cursor_idle_ms: settings.cursor_idle_ms,
        }
    }
}

/// Settings of a queue in answers; the same fields as in requests.
#[derive(Debug, Serialize)]
pub struct QueueSettingsView {
    retention_ms: Option<u64>,
    messages_max: Option<u64>,
    bytes_max: Option<u64>,
    receive_count_max: u32,
    dead_letter: Option<QueueName>,
    dedup_window_ms: u64,
}

impl From<QueueSettings> for QueueSettingsView {
    fn from(settings: QueueSettings) -> Self {
        Self {
            retention_ms: settings.retention_ms,
            messages_max: settings.messages_max,
            bytes_max: settings.bytes_max,
            receive_count_max: settings.receive_count_max,
            dead_letter: settings.dead_letter.map(|name| QueueName {
                namespace: Some(name.namespace().to_owned()),
                name: name.text().to_owned(),
            }),
            dedup_window_ms: settings.dedup_window_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(json: &str) -> Result<TopicSettings, String> {
        let defaults = TopicSettings {
            retention_bytes: Some(7),
            ..TopicSettings::default()
        };
        let body: TopicSettingsBody = serde_json::from_str(json).map_err(|e| e.to_string())?;
        body.resolve(&defaults).map_err(|e| e.to_string())
    }

    fn queue(json: &str) -> Result<QueueSettings, String> {
        let name = Name::queue("orders").unwrap();
        let body: QueueSettingsBody = serde_json::from_str(json).map_err(|e| e.to_string())?;
        body.resolve(&name, &QueueSettings::default())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_missing_field_is_the_default_and_null_is_no_limit() {
        assert_eq!(topic("{}").unwrap().retention_bytes, Some(7));
        let none = topic(r#"{"retention_bytes":null,"retention_ms":5}"#).unwrap();
        assert_eq!(none.retention_bytes, None);
        assert_eq!(none.retention_ms, Some(5));
    }

    #[test]
    fn what_is_shown_can_be_put_back_unchanged() {
        let shown = topic(r#"{"retention_bytes":null,"retention_messages":9}"#).unwrap();
        let json = serde_json::to_string(&TopicSettingsView::from(shown.clone())).unwrap();
        assert_eq!(topic(&json).unwrap(), shown);
        let shown = queue(r#"{"dead_letter":{"name":"a/b"},"messages_max":3}"#).unwrap();
        let json = serde_json::to_string(&QueueSettingsView::from(shown.clone())).unwrap();
        assert_eq!(queue(&json).unwrap(), shown);
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        for (json, word) in [
            (r#"{"retention":5}"#, "`retention`"),
            (r#"{"retention_ms":0}"#, "retention_ms"),
            (r#"{"retention_ms":-1}"#, "-1"),
            (r#"{"dedup_window_ms":null}"#, "null"),
        ] {
            let error = topic(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
        for (json, word) in [
            (r#"{"dead_letter":{"name":"orders"}}"#, "itself"),
            (r#"{"dead_letter":{"name":""}}"#, "empty"),
            (r#"{"dead_letter":"x"}"#, "string"),
            (
                r#"{"dead_letter":{"name":"x","namespace":"A"}}"#,
                "namespace",
            ),
            (r#"{"messages_max":0}"#, "messages_max"),
        ] {
            let error = queue(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
