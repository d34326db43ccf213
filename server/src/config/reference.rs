//! The configuration written out for people: as a file (`maru config show`) and as the table in
//! `spec/operations.md` (`maru config reference`).

use super::{Config, Loaded, Node};

/// The keys that `maru serve` also takes as flags.
pub const FLAGS: [&str; 11] = [
    "data",
    "server_name",
    "listen",
    "federation_listen",
    "metrics_listen",
    "database",
    "node_name",
    "node_listen",
    "nats",
    "registration",
    "rate_limits",
];

/// The configuration as a file that gives the same values, each with its source; passwords are starred out.
pub fn as_file(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut section = String::new();
    loaded.config.clone().walk("", "", &mut |key| {
        let (here, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if here != section {
            section = here.to_owned();
            text.push_str(&format!("\n[{section}]\n"));
        }
        let source = loaded
            .sources
            .get(&key.path)
            .map(ToString::to_string)
            .unwrap_or_default();
        match key.value.shown() {
            Some(value) => text.push_str(&format!("{name} = {value} # {source}\n")),
            None => text.push_str(&format!("# {name} is unset\n")),
        }
    });
    text
}

/// The reference of all keys as a Markdown table.
pub fn as_table() -> String {
    let mut text = "| key | variable | flag | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    Config::default().walk("", "", &mut |key| {
        let flag = match FLAGS.contains(&key.path.as_str()) {
            true => format!("`--{}`", key.path.replace('_', "-")),
            false => String::new(),
        };
        let default = key
            .value
            .shown()
            .map_or_else(|| "unset".to_owned(), |value| format!("`{value}`"));
        let (path, variable, meaning) = (&key.path, key.variable(), &key.meaning);
        text.push_str(&format!(
            "| `{path}` | `{variable}` | {flag} | {default} | {meaning} |\n"
        ));
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    /// A peer with a domain, its root key pinned.
    const PEER: &str = r#"[{name = "b.example", addresses = ["[::1]:1"], key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]"#;

    #[test]
    fn the_reference_in_the_operations_guide_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/operations.md");
        let guide = std::fs::read_to_string(path).unwrap();
        assert!(
            guide.contains(&as_table()),
            "spec/operations.md does not hold the output of `maru config reference`, which is:\n\n{}",
            as_table()
        );
    }

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maru.toml");
        let environment = [
            ("MARU_TRUSTED_PROXIES", "10.0.0.0/8,::1"),
            ("MARU_RATES_JOINS_PER_USER_PER_SECOND", "0.25"),
            ("MARU_SERVER_NAME", "a.example"),
            ("MARU_PUBLIC_BASE_URL", "https://a.example"),
            ("MARU_FEDERATION_PEERS", PEER),
            ("MARU_FEDERATION_DENY", "b.example, c.example"),
            ("MARU_FEDERATION_ADDRESSES", "192.0.2.1:8448"),
        ];
        let environment = environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let first = load(&Sources {
            environment,
            ..Sources::default()
        })
        .unwrap();
        std::fs::write(&path, as_file(&first)).unwrap();
        let second = load(&Sources {
            file: Some(path),
            ..Sources::default()
        })
        .unwrap();
        assert_eq!(first.config, second.config);
        assert_ne!(first.config, Config::default());
    }

    #[test]
    fn every_flag_is_a_key() {
        let mut keys = Vec::new();
        Config::default().walk("", "", &mut |key| keys.push(key.path));
        for flag in FLAGS {
            assert!(keys.iter().any(|key| key == flag), "{flag}");
        }
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut variables = Vec::new();
        Config::default().walk("", "", &mut |key| variables.push(key.variable()));
        let all = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }
}
