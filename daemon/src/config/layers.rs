//! Gathers one text per key from the sources, and turns the winners into a [`Config`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::field::Field;
use super::keys::{self, Key};
use super::origin::Origin;
use super::sections::Config;
use super::{ENVIRONMENT_FILE, ENVIRONMENT_PREFIX, checks, routes_file};
use crate::error::DaemonError;
use crate::mutation;

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The flag as it is typed.
    pub flag: &'static str,
    /// The key that it sets.
    pub key: String,
    /// What to set.
    pub text: String,
}

/// The texts of all keys that somebody set.
#[derive(Debug, Default)]
pub struct Layers {
    texts: BTreeMap<&'static str, (String, Origin)>,
}

impl Layers {
    /// Adds what a TOML file says.
    pub fn add_file(&mut self, path: &Path) -> Result<(), DaemonError> {
        let text = std::fs::read_to_string(path).map_err(|source| DaemonError::ConfigFile {
            path: path.to_owned(),
            source,
        })?;
        self.add_toml(path, &text)
    }

    /// Adds the text of a TOML file.
    pub fn add_toml(&mut self, path: &Path, text: &str) -> Result<(), DaemonError> {
        let origin = Origin::File(path.to_owned());
        let table: toml::Table = text
            .parse()
            .map_err(|error| syntax_error(path, text, &error))?;
        for (section, value) in table {
            let toml::Value::Table(entries) = value else {
                return Err(unknown(&section, &origin));
            };
            if !keys::all().any(|key| key.section() == section) {
                return Err(unknown(&section, &origin));
            }
            for (entry, value) in entries {
                let name = format!("{section}.{entry}");
                let key = keys::named(&name).ok_or_else(|| unknown(&name, &origin))?;
                let text = toml_text(key, &value, &origin)?;
                self.texts.insert(key.name, (text, origin.clone()));
            }
        }
        Ok(())
    }

    /// Adds the variables of the program's environment.
    pub fn add_environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(), DaemonError> {
        for (name, value) in variables {
            // A name that is not UTF-8 is none of ours.
            let Some(name) = name.to_str().filter(|n| n.starts_with(ENVIRONMENT_PREFIX)) else {
                continue;
            };
            let is_no_key = name == ENVIRONMENT_FILE || mutation::is_variable(name);
            if is_no_key || is_service_link(name, &value) {
                continue;
            }
            let origin = Origin::Environment(name.to_owned());
            let key = keys::all()
                .find(|key| key.environment() == name)
                .ok_or_else(|| unknown(name, &origin))?;
            let text = value.into_string().map_err(|value| DaemonError::Config {
                key: key.name.to_owned(),
                value: key.shown(&value.to_string_lossy()),
                origin: origin.clone(),
                allowed: "UTF-8 text".to_owned(),
            })?;
            self.texts.insert(key.name, (text, origin));
        }
        Ok(())
    }

    /// Adds what the command line says.
    pub fn add_flags(
        &mut self,
        flags: impl IntoIterator<Item = FlagValue>,
    ) -> Result<(), DaemonError> {
        for FlagValue { flag, key, text } in flags {
            let origin = Origin::Flag(flag);
            let found = keys::named(&key).ok_or_else(|| unknown(&key, &origin))?;
            self.texts.insert(found.name, (text, origin));
        }
        Ok(())
    }

    /// Reads every text, the defaults of unset keys included, and checks keys against each other.
    pub fn build(&self) -> Result<Config, DaemonError> {
        let mut config = Config::blank();
        for key in keys::all() {
            let default = (key.default.to_owned(), Origin::Default);
            let (text, origin) = self.texts.get(key.name).unwrap_or(&default);
            key.field
                .set(&mut config, text)
                .map_err(|allowed| DaemonError::Config {
                    key: key.name.to_owned(),
                    value: key.shown(text),
                    origin: origin.clone(),
                    allowed,
                })?;
        }
        routes_file::load(&mut config)
            .and_then(|()| checks::check(&config))
            .map_err(|problem| self.error_at(problem.key, problem.allowed))?;
        Ok(config)
    }

    /// Who set a key.
    pub fn origin(&self, key: &str) -> Origin {
        self.texts
            .get(key)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The error that a key's value does not go with the others'.
    fn error_at(&self, key: &'static str, allowed: String) -> DaemonError {
        let text = self.texts.get(key).map(|(text, _)| text.as_str());
        let value = keys::named(key).map(|key| key.shown(text.unwrap_or(key.default)));
        DaemonError::Config {
            key: key.to_owned(),
            value: value.unwrap_or_default(),
            origin: self.origin(key),
            allowed,
        }
    }
}

/// Where a file is not TOML, and why. What stands there is not shown: it may be a secret.
fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> DaemonError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    DaemonError::ConfigSyntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem: error.message().to_owned(),
    }
}

/// The text of a TOML value, as the other sources would write it.
fn toml_text(key: &Key, value: &toml::Value, origin: &Origin) -> Result<String, DaemonError> {
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    };
    let text = match value {
        toml::Value::Array(items) => items
            .iter()
            .map(one)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        toml::Value::Table(table) => texts(key, table),
        value => one(value),
    };
    text.ok_or_else(|| DaemonError::Config {
        key: key.name.to_owned(),
        value: key.shown(&value.to_string()),
        origin: origin.clone(),
        allowed: key.field.allowed(),
    })
}

/// A table of texts as the other sources write it; `None` where the key takes none, or it has other values.
fn texts(key: &Key, table: &toml::Table) -> Option<String> {
    let Field::Texts { members, .. } = &key.field else {
        return None;
    };
    let object = |(name, text): (&String, &toml::Value)| {
        let text = text.as_str()?;
        Some(serde_json::json!({ members.0: name, members.1: text }))
    };
    let objects: Option<serde_json::Value> = table.iter().map(object).collect();
    Some(objects?.to_string())
}

/// Whether a container platform set this variable because a service there is called `flotilla…`:
/// such variables appear unasked in every container beside that service.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let rest = &name[ENVIRONMENT_PREFIX.len() - 1..];
    let is_url = value
        .to_str()
        .and_then(|value| value.split_once("://"))
        .is_some_and(|(scheme, _)| matches!(scheme, "tcp" | "udp" | "sctp"));
    let is_port = |part: &str| {
        let mut words = part.split('_');
        let number = words.next().unwrap_or_default();
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || (rest.ends_with("_PORT") && is_url)
        || rest.split("_PORT_").skip(1).any(is_port)
}

fn unknown(key: &str, origin: &Origin) -> DaemonError {
    let section = key.split('.').next().unwrap_or_default();
    let in_section: Vec<_> = keys::all()
        .filter(|known| known.section() == section)
        .map(|known| known.name)
        .collect();
    let known = match origin {
        Origin::Environment(_) => {
            format!("{ENVIRONMENT_PREFIX}SECTION_KEY, such as FLOTILLA_NODE_DATA_DIR")
        }
        _ if in_section.is_empty() => {
            let mut sections: Vec<_> = keys::all().map(Key::section).collect();
            sections.dedup();
            format!("the sections {}", sections.join(", "))
        }
        _ => in_section.join(", "),
    };
    DaemonError::UnknownKey {
        key: key.to_owned(),
        origin: origin.clone(),
        known,
    }
}
