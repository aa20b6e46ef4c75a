//! Where rules come from, and whether they are still the same there.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rules::Rules;
use crate::error::GatewayError;

/// Longest text of rules.
const RULES_BYTES_MAX: u64 = 4 << 20;

/// Where the rules are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulesSource {
    /// Here.
    Inline(String),
    /// In a file, which may change.
    File {
        path: PathBuf,
        /// How often it is looked at; `None`: never again.
        reload_interval: Option<Duration>,
    },
}

/// What came of looking at a file that had changed.
#[derive(Debug)]
pub enum Reading {
    /// Its rules are in force.
    Applied { records: usize },
    /// It is wrong, or cannot be read: the rules from before stay in force.
    Refused(GatewayError),
}

impl RulesSource {
    /// The rules as they are written.
    pub(super) fn read(&self) -> Result<Vec<u8>, GatewayError> {
        match self {
            Self::Inline(text) => Ok(text.clone().into_bytes()),
            Self::File { path, .. } => read_file(path),
        }
    }

    pub(super) fn parse(&self, bytes: &[u8]) -> Result<Rules, GatewayError> {
        Rules::parse(bytes).map_err(|source| GatewayError::Rules {
            place: match self {
                Self::Inline(_) => "the access rules".to_owned(),
                Self::File { path, .. } => format!("the access rules in {}", path.display()),
            },
            source,
        })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, GatewayError> {
    let failed = |source| GatewayError::RulesFile {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(RULES_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > RULES_BYTES_MAX {
        return Err(failed(std::io::Error::other(format!(
            "it has more than {RULES_BYTES_MAX} bytes"
        ))));
    }
    Ok(bytes)
}

/// Looks at a source again and again.
pub struct Watch<'a> {
    source: &'a RulesSource,
    /// What was read last; `None`: it could not be.
    seen: Option<Vec<u8>>,
}

impl<'a> Watch<'a> {
    /// Of a source that said this.
    pub fn new(source: &'a RulesSource, seen: Option<&[u8]>) -> Self {
        Self {
            source,
            seen: seen.map(<[u8]>::to_vec),
        }
    }

    /// The next change: what is told of it, and the rules if they are right. A file that stays wrong, or away,
    /// is told once.
    pub async fn next(&mut self) -> (Reading, Option<Rules>) {
        let RulesSource::File {
            path,
            reload_interval: Some(interval),
        } = self.source
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(*interval).await;
            let place = path.clone();
            let reading = tokio::task::spawn_blocking(move || read_file(&place)).await;
            let Ok(reading) = reading else {
                // The runtime ends.
                return std::future::pending().await;
            };
            match reading {
                Ok(bytes) if self.seen.as_ref() == Some(&bytes) => {}
                Ok(bytes) => {
                    let parsed = self.source.parse(&bytes);
                    self.seen = Some(bytes);
                    return match parsed {
                        Ok(rules) => {
                            let records = rules.len();
                            (Reading::Applied { records }, Some(rules))
                        }
                        Err(error) => (Reading::Refused(error), None),
                    };
                }
                Err(error) => {
                    if self.seen.take().is_some() {
                        return (Reading::Refused(error), None);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::rules::{Action, Pattern};

    const FOR_A: &str = r#"[{"ClientID":"a","Channel":".*","Queues":true,"Read":true}]"#;
    const FOR_B: &str = r#"[{"ClientID":"b","Channel":".*","Queues":true,"Read":true}]"#;

    fn file(text: &str) -> (tempfile::TempDir, RulesSource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.json");
        std::fs::write(&path, text).unwrap();
        let source = RulesSource::File {
            path,
            reload_interval: Some(Duration::from_millis(5)),
        };
        (folder, source)
    }

    fn write(folder: &tempfile::TempDir, text: &str) {
        // As tools do it that change a file which others read.
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, folder.path().join("rules.json")).unwrap();
    }

    #[tokio::test]
    async fn a_changed_file_brings_new_rules_and_a_wrong_one_is_told_once() {
        let (folder, source) = file(FOR_A);
        let first = source.read().unwrap();
        let mut watch = Watch::new(&source, Some(&first));
        write(&folder, FOR_B);
        let (reading, rules) = watch.next().await;
        assert!(matches!(reading, Reading::Applied { records: 1 }));
        assert!(
            rules
                .unwrap()
                .allow("b", Pattern::Queues, "q", Action::Read)
        );

        write(&folder, "[{");
        let (reading, rules) = watch.next().await;
        assert!(rules.is_none());
        let Reading::Refused(error) = reading else {
            panic!("half a file was applied");
        };
        assert!(error.to_string().contains("rules.json"), "{error}");
        let quiet = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
        assert!(quiet.is_err(), "the same was told twice");

        std::fs::remove_file(folder.path().join("rules.json")).unwrap();
        let (reading, rules) = watch.next().await;
        assert!(matches!(reading, Reading::Refused(_)) && rules.is_none());
        write(&folder, FOR_A);
        assert!(watch.next().await.1.is_some());
    }

    #[test]
    fn a_file_that_is_not_there_or_too_long_is_named() {
        let (folder, source) = file(&" ".repeat(RULES_BYTES_MAX as usize + 1));
        let error = flotilla_chain(&source.read().unwrap_err());
        assert!(
            error.contains("rules.json") && error.contains("4194304"),
            "{error}"
        );
        std::fs::remove_file(folder.path().join("rules.json")).unwrap();
        let error = flotilla_chain(&source.read().unwrap_err());
        assert!(error.contains("rules.json"), "{error}");
    }

    fn flotilla_chain(error: &GatewayError) -> String {
        let source = std::error::Error::source(error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }
}
