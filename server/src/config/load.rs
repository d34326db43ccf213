//! Where values come from: flags before environment before file before defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use maru_protocol::record::MAX_ADDRESSES;
use maru_protocol::wire::limits::MAX_FRAME_BYTES;

use super::{Config, Database, Media, MediaStorage, Node};

/// Everything that can give a key a value, besides its default.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one is named.
    pub file: Option<PathBuf>,
    /// Variables by name. Those that do not start with `MARU_` are ignored.
    pub environment: BTreeMap<String, String>,
    /// Values of flags by key: `listen` for `--listen`.
    pub flags: BTreeMap<&'static str, String>,
}

impl Sources {
    /// The given flags with the environment of this process. `MARU_CONFIG` names the file if no flag does.
    pub fn of_process(file: Option<PathBuf>, flags: BTreeMap<&'static str, String>) -> Self {
        let environment: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            // Those of the project's own tests are none of the server's.
            .filter(|(name, _)| name.starts_with("MARU_") && !name.starts_with("MARU_TEST_"))
            .collect();
        let file = file.or_else(|| environment.get("MARU_CONFIG").map(PathBuf::from));
        Self {
            file,
            environment,
            flags,
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
        }
    }
}

/// Why there is no configuration. Each is one line that names the key and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: line {line}: {cause}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says, on one line.
        cause: String,
    },
    /// The file sets a key that does not exist.
    #[error("{}: unknown key `{key}`", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value cannot be used.
    #[error("bad value for `{key}` from {from}: {cause}")]
    BadValue {
        /// The key.
        key: String,
        /// Where the value was set.
        from: Source,
        /// What was expected.
        cause: String,
    },
}

/// A configuration and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The source of each key.
    pub sources: BTreeMap<String, Source>,
    /// Variables that look like ours but name no key: probably a slip.
    pub unknown_variables: Vec<String>,
}

/// Gathers the configuration and checks every value and how they fit together.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut config = Config::default();
    let mut in_file = sources
        .file
        .as_deref()
        .map(read_file)
        .transpose()?
        .unwrap_or_default();
    let mut in_environment = sources.environment.clone();
    in_environment.remove("MARU_CONFIG");
    let mut came_from = BTreeMap::new();
    let mut problem = None;

    config.walk("", "", &mut |key| {
        let from_file = in_file.remove(&key.path);
        let from_variable = in_environment.remove(&key.variable());
        let from_flag = sources.flags.get_key_value(key.path.as_str());
        let file = || Source::File(sources.file.clone().unwrap_or_default());
        let (text, source) = match (from_flag, from_variable, from_file) {
            (Some((name, text)), _, _) => (text.clone(), Source::Flag(name)),
            (_, Some(text), _) => (text, Source::Variable(key.variable())),
            (_, _, Some(text)) => (text, file()),
            _ => {
                came_from.insert(key.path, Source::Default);
                return;
            }
        };
        if let Err(cause) = key.value.set(text.trim()) {
            let from = source.clone();
            problem.get_or_insert(ConfigError::BadValue {
                key: key.path.clone(),
                from,
                cause,
            });
        }
        came_from.insert(key.path, source);
    });

    if let Some(key) = in_file.into_keys().next() {
        return Err(ConfigError::UnknownKey {
            path: sources.file.clone().unwrap_or_default(),
            key,
        });
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    if let Err((key, cause)) = config.check() {
        let from = came_from.get(key).cloned().unwrap_or(Source::Default);
        return Err(ConfigError::BadValue {
            key: key.to_owned(),
            from,
            cause,
        });
    }
    Ok(Loaded {
        config,
        sources: came_from,
        unknown_variables: in_environment.into_keys().collect(),
    })
}

/// The keys of a file with their values as text.
fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: 1 + error
                .span()
                .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count()),
            cause: error.message().replace('\n', " "),
        })?;
    let mut keys = BTreeMap::new();
    gather(&table, "", &mut keys);
    Ok(keys)
}

/// Adds the keys at and below a table, by their full names.
fn gather(table: &toml::Table, path: &str, keys: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let path = super::section::below(path, name);
        match value {
            toml::Value::Table(inner) => gather(inner, &path, keys),
            value => {
                keys.insert(path, as_text(value));
            }
        }
    }
}

/// A value of the file as it would be written in a variable.
fn as_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => value.to_string(),
        toml::Value::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

impl Config {
    /// Checks what no single key can: how values fit together.
    fn check(&self) -> Result<(), (&'static str, String)> {
        match (&self.tls.certificate, &self.tls.private_key) {
            (Some(_), None) => Err(("tls.certificate", "tls.private_key must be set too".to_owned()))?,
            (None, Some(_)) => Err(("tls.private_key", "tls.certificate must be set too".to_owned()))?,
            _ => {}
        }
        self.media.check()?;
        if !self.nats.is_empty() && self.database == Database::Sqlite {
            let cause = "is for several nodes, which share a PostgreSQL database".to_owned();
            Err(("nats", cause))?;
        }
        if self.federation.addresses.len() > MAX_ADDRESSES {
            let cause = format!("{MAX_ADDRESSES} addresses fit into a server record");
            Err(("federation.addresses", cause))?;
        }
        if self.federation.inbox_bytes < MAX_FRAME_BYTES as u64 {
            let cause = format!("must hold the largest frame, {MAX_FRAME_BYTES} bytes");
            Err(("federation.inbox_bytes", cause))?;
        }
        let at_least_one = [
            ("limits.message_characters", self.limits.message_characters),
            ("limits.request_body_bytes", self.limits.request_body_bytes),
            ("limits.devices_per_user", self.limits.devices_per_user as usize),
            ("limits.password_characters", self.limits.password_characters),
            (
                "limits.connections_per_address",
                self.limits.connections_per_address,
            ),
            ("limits.commit_changes", self.limits.commit_changes),
            ("limits.commit_bytes", self.limits.commit_bytes),
            ("limits.connections", self.limits.connections),
            (
                "limits.request_head_seconds",
                self.limits.request_head_seconds as usize,
            ),
            (
                "presence.offline_after_seconds",
                self.presence.offline_after_seconds as usize,
            ),
            (
                "federation.backlog_events",
                self.federation.backlog_events as usize,
            ),
            ("federation.inbox_events", self.federation.inbox_events as usize),
            ("federation.verdict_events", self.federation.verdict_events),
        ];
        match at_least_one.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err((key, "must be at least 1".to_owned())),
            None => Ok(()),
        }
    }
}

impl Media {
    /// Checks that a bucket can be found and entered, where media are to lie in one.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.storage == MediaStorage::Disk {
            return Ok(());
        }
        let missing = [
            ("media.bucket", self.bucket.is_none()),
            ("media.access_key", self.access_key.is_none()),
            (
                "media.secret_key",
                self.secret_key.is_none() && self.secret_key_file.is_none(),
            ),
        ];
        if let Some((key, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            return Err((key, "must be set where media.storage is s3".to_owned()));
        }
        if self.secret_key.is_some() && self.secret_key_file.is_some() {
            let cause = "media.secret_key is set too, and one of them is enough".to_owned();
            return Err(("media.secret_key_file", cause));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Registration;

    fn sources(
        file: Option<&str>,
        variables: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> (Sources, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = file.map(|text| {
            let path = folder.path().join("maru.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let environment = variables
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let flags = flags.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        (
            Sources {
                file,
                environment,
                flags,
            },
            folder,
        )
    }

    fn loaded(
        file: &str,
        variables: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Result<Loaded, String> {
        let (sources, _folder) = sources(Some(file), variables, flags);
        load(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let found = load(&Sources::default()).unwrap();
        assert_eq!(found.config, Config::default());
        assert!(found.sources.values().all(|source| *source == Source::Default));
    }

    #[test]
    fn flag_over_variable_over_file() {
        let file = "listen = \"127.0.0.1:1\"\nregistration = \"open\"\n[limits]\nupload_bytes = 5\ncommit_changes = 7";
        let variables = [("MARU_LISTEN", "127.0.0.1:2"), ("MARU_LIMITS_UPLOAD_BYTES", "6")];
        let found = loaded(file, &variables, &[("listen", "127.0.0.1:3")]).unwrap();
        assert_eq!(found.config.listen.port(), 3);
        assert_eq!(found.config.limits.upload_bytes, 6);
        assert_eq!(found.config.limits.commit_changes, 7);
        assert_eq!(found.config.registration, Registration::Open);
        assert_eq!(found.sources["listen"], Source::Flag("listen"));
        assert_eq!(
            found.sources["limits.upload_bytes"],
            Source::Variable("MARU_LIMITS_UPLOAD_BYTES".into())
        );
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let file = "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nrate_limits = false\n\
                    [rates.messages_per_user]\nper_second = 3\nburst = 1_000\n[log]\nformat = \"json\"";
        let found = loaded(file, &[("MARU_LOG_LEVEL", "debug")], &[("rate_limits", "on")])
            .unwrap()
            .config;
        assert_eq!(found.trusted_proxies.len(), 2);
        assert!(found.rate_limits);
        assert_eq!(
            found.rates.messages_per_user,
            crate::config::Rate {
                per_second: 3.0,
                burst: 1000
            }
        );
        assert_eq!(found.log.level, crate::config::LogLevel::Debug);
    }

    #[test]
    fn what_is_wrong_names_key_and_source() {
        let error = |file, variables: &[_], flags: &[_]| {
            let error = loaded(file, variables, flags).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            error
        };
        let found = error("lisen = 1", &[], &[]);
        assert!(
            found.contains("unknown key `lisen`") && found.contains("maru.toml"),
            "{found}"
        );
        let found = error("[limits]\nuplod_bytes = 1", &[], &[]);
        assert!(found.contains("`limits.uplod_bytes`"), "{found}");
        let found = error("listen = 5", &[], &[]);
        assert!(
            found.contains("`listen`") && found.contains("maru.toml"),
            "{found}"
        );
        let found = error("", &[("MARU_LIMITS_UPLOAD_BYTES", "-1")], &[]);
        assert!(
            found.contains("`limits.upload_bytes` from MARU_LIMITS_UPLOAD_BYTES"),
            "{found}"
        );
        let found = error("", &[], &[("federation_listen", "here")]);
        assert!(found.contains("from --federation-listen"), "{found}");
        let found = error("a = 1\nb = [", &[], &[]);
        assert!(found.contains("line 2"), "{found}");
        let found = error("[tls]\ncertificate = \"a.pem\"", &[], &[]);
        assert!(found.contains("tls.private_key must be set too"), "{found}");
        let found = error("[limits]\nconnections = 0", &[], &[]);
        assert!(found.contains("`limits.connections`"), "{found}");
        let found = error("[rates.messages_per_user]\nper_second = 0", &[], &[]);
        assert!(found.contains("greater than 0"), "{found}");
        let found = error(
            "[media]\nstorage = \"s3\"\nbucket = \"b\"\naccess_key = \"a\"",
            &[],
            &[],
        );
        assert!(found.contains("`media.secret_key`"), "{found}");
        let found = error("limits = 3", &[], &[]);
        assert!(found.contains("unknown key `limits`"), "{found}");
    }

    #[test]
    fn a_missing_file_is_one_clear_line() {
        let sources = Sources {
            file: Some("nowhere/maru.toml".into()),
            ..Sources::default()
        };
        let error = load(&sources).unwrap_err().to_string();
        assert!(
            error.contains("cannot read the configuration file nowhere/maru.toml"),
            "{error}"
        );
    }

    #[test]
    fn a_variable_without_a_key_is_reported() {
        let found = loaded("", &[("MARU_LISTN", "x"), ("MARU_CONFIG", "y")], &[]).unwrap();
        assert_eq!(found.unknown_variables, ["MARU_LISTN"]);
    }
}
