//! One registration file, in YAML or JSON, as bridges write them.

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};

use ruma::{ServerName, UserId};
use serde_json::{Map, Value};
use thiserror::Error;

use super::namespaces::{Namespaces, PATTERNS};
use super::{Ephemeral, Registration};
use crate::token_hash::TokenHash;

/// Largest file, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// Longest id, in bytes.
const ID_BYTES: usize = 100;

/// Longest token, in bytes.
const TOKEN_BYTES: usize = 1_000;

/// Most networks that one service knows.
const PROTOCOLS: usize = 100;

/// What the names of files in a folder end in.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Why a registration cannot be used: one line that names the file and, where one is to blame, the field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("application service {}: {what}", file.display())]
pub struct RegistrationError {
    file: PathBuf,
    what: String,
}

impl RegistrationError {
    fn whole(file: &Path, what: impl Display) -> Self {
        Self {
            file: file.to_owned(),
            what: what.to_string(),
        }
    }

    pub(super) fn field(file: &Path, field: impl Display, what: impl Display) -> Self {
        Self::whole(file, format_args!("`{field}`: {what}"))
    }
}

/// The registration files at a path: the file itself, or those in the folder, in order of their names.
pub(super) fn files_at(path: &Path) -> Result<Vec<PathBuf>, RegistrationError> {
    let unreadable =
        |error: std::io::Error| RegistrationError::whole(path, format_args!("cannot be read: {error}"));
    if !path.metadata().map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if file.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            files.push(file);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Reads a file and checks every field.
pub(super) fn read(file: &Path, server_name: &ServerName) -> Result<Registration, RegistrationError> {
    let unreadable =
        |error: std::io::Error| RegistrationError::whole(file, format_args!("cannot be read: {error}"));
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let read = opened.take(FILE_BYTES + 1).read_to_string(&mut text);
    if read.map_err(unreadable)? as u64 > FILE_BYTES {
        return Err(RegistrationError::whole(
            file,
            format_args!("has more than {FILE_BYTES} bytes"),
        ));
    }
    let is_json = file.extension().is_some_and(|ending| ending == "json");
    let parsed: Result<Value, String> = match is_json {
        true => serde_json::from_str(&text).map_err(|error| error.to_string()),
        false => serde_saphyr::from_str(&text).map_err(|error| error.to_string()),
    };
    let first_line = |error: String| error.lines().next().unwrap_or_default().to_owned();
    match parsed {
        Ok(Value::Object(fields)) => Fields { file, fields }.registration(server_name),
        Ok(_) => Err(RegistrationError::whole(file, "is no mapping of fields")),
        Err(error) => Err(RegistrationError::whole(file, first_line(error))),
    }
}

/// The fields of a file.
struct Fields<'f> {
    file: &'f Path,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn registration(&self, server_name: &ServerName) -> Result<Registration, RegistrationError> {
        let localpart = self.text("sender_localpart")?;
        let sender = UserId::parse(format!("@{localpart}:{server_name}"));
        let sender = sender.ok().filter(|sender| sender.localpart() == localpart);
        let sender = sender.ok_or_else(|| self.bad("sender_localpart", "makes no user id"))?;
        Ok(Registration {
            id: self.id()?,
            url: self.url()?,
            hs_token: self.token("hs_token")?.to_owned(),
            as_token: TokenHash::of(self.token("as_token")?),
            sender,
            users: self.namespaces("users")?,
            aliases: self.namespaces("aliases")?,
            rooms: self.namespaces("rooms")?,
            rate_limited: self.flag("rate_limited", true)?,
            protocols: self.protocols()?,
            ephemeral: Ephemeral {
                stable: self.flag("receive_ephemeral", false)?,
                unstable: self.flag("de.sorunome.msc2409.push_ephemeral", false)?,
            },
            encrypts: self.encrypts()?,
        })
    }

    fn bad(&self, field: impl Display, what: impl Display) -> RegistrationError {
        RegistrationError::field(self.file, field, what)
    }

    /// A field that must be there.
    fn text(&self, field: &str) -> Result<&str, RegistrationError> {
        match self.fields.get(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            None | Some(Value::Null) => Err(self.bad(field, "is missing")),
            Some(Value::Number(_)) => Err(self.bad(field, "is a number: put it in quotes")),
            Some(_) => Err(self.bad(field, "must be a text")),
        }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, RegistrationError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.bad(field, "must be true or false")),
        }
    }

    fn id(&self) -> Result<String, RegistrationError> {
        let id = self.text("id")?;
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"\\".contains(c);
        if id.len() > ID_BYTES || !id.chars().all(is_plain) {
            let what =
                format!("has at most {ID_BYTES} visible ASCII characters, and no quotes or backslashes");
            return Err(self.bad("id", what));
        }
        Ok(id.to_owned())
    }

    fn token(&self, field: &str) -> Result<&str, RegistrationError> {
        let token = self.text(field)?;
        if token.len() > TOKEN_BYTES || !token.chars().all(|c| c.is_ascii_graphic()) {
            let what = format!("has at most {TOKEN_BYTES} visible ASCII characters");
            return Err(self.bad(field, what));
        }
        Ok(token)
    }

    /// Where the service listens. The field must be there, since who forgets it would wait for events in vain.
    fn url(&self) -> Result<Option<String>, RegistrationError> {
        let url = match self.fields.get("url") {
            None => return Err(self.bad("url", "is missing (null for a service that is sent nothing)")),
            Some(Value::Null) => return Ok(None),
            Some(Value::String(url)) if url.is_empty() => return Ok(None),
            Some(Value::String(url)) => url,
            Some(_) => return Err(self.bad("url", "must be a text or null")),
        };
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let is_plain = |c: char| c.is_ascii_graphic() && !"?#@\"'<>\\".contains(c);
        match rest {
            Some(rest) if !rest.is_empty() && !rest.starts_with(['/', ':']) && rest.chars().all(is_plain) => {
                Ok(Some(url.trim_end_matches('/').to_owned()))
            }
            _ => Err(self.bad("url", "must begin with http:// or https:// and name a host")),
        }
    }

    /// MSC3202, as it was proposed and as bridges write it.
    fn encrypts(&self) -> Result<bool, RegistrationError> {
        // That it makes its devices itself needs no word any more: every service may.
        self.flag("io.element.msc4190", false)?;
        self.flag("org.matrix.msc3202", false)
    }

    fn protocols(&self) -> Result<Vec<String>, RegistrationError> {
        let listed = match self.fields.get("protocols") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(listed)) if listed.len() <= PROTOCOLS => listed,
            Some(_) => {
                let what = format!("must be a list of at most {PROTOCOLS} names");
                return Err(self.bad("protocols", what));
            }
        };
        let name = |value: &Value| match value {
            Value::String(name) if !name.is_empty() => Ok(name.clone()),
            _ => Err(self.bad("protocols", "must be a list of names")),
        };
        listed.iter().map(name).collect()
    }

    /// The patterns of a kind. The mapping must be there; a kind need not.
    fn namespaces(&self, kind: &str) -> Result<Namespaces, RegistrationError> {
        let mut namespaces = Namespaces::default();
        let listed = match self.fields.get("namespaces") {
            Some(Value::Object(kinds)) => kinds.get(kind),
            None | Some(Value::Null) => return Err(self.bad("namespaces", "is missing")),
            Some(_) => return Err(self.bad("namespaces", "must hold users, aliases and rooms")),
        };
        let of_kind = format!("namespaces.{kind}");
        let listed = match listed {
            None | Some(Value::Null) => return Ok(namespaces),
            Some(Value::Array(listed)) => listed,
            Some(_) => return Err(self.bad(of_kind, "must be a list")),
        };
        for (at, entry) in listed.iter().enumerate() {
            let field = |name: &str| format!("{of_kind}[{at}].{name}");
            let Some(Value::String(pattern)) = entry.get("regex") else {
                return Err(self.bad(field("regex"), "must be there, and a text"));
            };
            let is_exclusive = match entry.get("exclusive") {
                Some(Value::Bool(is_exclusive)) => *is_exclusive,
                _ => return Err(self.bad(field("exclusive"), "must be true or false")),
            };
            let added = namespaces.add(pattern, is_exclusive);
            added.map_err(|why| self.bad(field("regex"), why))?;
        }
        if namespaces.len() > PATTERNS {
            let what = format!("has more than {PATTERNS} patterns");
            return Err(self.bad(of_kind, what));
        }
        Ok(namespaces)
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::appservice_registrations::Registrations;

    /// As a bridge writes it.
    const BRIDGE: &str = r#"id: telegram
as_token: 7ZKSxAabeOPl
hs_token: "0123"
namespaces:
    users:
    - exclusive: true
      regex: '@telegram_.*:example\.org'
    - exclusive: true
      regex: '@telegrambot:example\.org'
    aliases:
    - exclusive: true
      regex: \#telegram_.*:example\.org
url: http://localhost:29317/
sender_localpart: ciWZmTMN
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
receive_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
"#;

    fn load(name: &str, text: &str) -> Result<Registrations, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let loaded = Registrations::load(&[folder.path().to_owned()], server_name!("example.org"));
        loaded.map_err(|error| error.to_string())
    }

    #[test]
    fn a_bridge_is_read_as_it_writes_itself() {
        let all = load("telegram.yaml", BRIDGE).unwrap();
        let bridge = all.by_token(TokenHash::of("7ZKSxAabeOPl")).unwrap();
        assert_eq!(bridge.url.as_deref(), Some("http://localhost:29317"));
        assert_eq!(bridge.sender, "@ciWZmTMN:example.org");
        assert_eq!(bridge.hs_token, "0123");
        assert!(!bridge.rate_limited && bridge.encrypts && bridge.ephemeral.is_wanted());
        let user = |name: &str| ruma::UserId::parse(name).unwrap();
        assert!(bridge.has_user_alone(&user("@telegram_1:example.org")));
        assert!(!bridge.is_for_user(&user("@ann:example.org")));
        let alias = ruma::RoomAliasId::parse("#telegram_x:example.org").unwrap();
        assert!(all.may_make_alias(&alias, &user("@telegrambot:example.org")));
        assert!(!all.may_make_alias(&alias, &user("@ann:example.org")));
    }

    #[test]
    fn json_is_read_too_and_other_files_are_not() {
        let json =
            r#"{"id":"a","url":null,"as_token":"b","hs_token":"c","sender_localpart":"d","namespaces":{}}"#;
        let all = load("a.json", json).unwrap();
        assert!(
            all.iter()
                .all(|service| service.url.is_none() && service.rate_limited)
        );
        assert!(load("README.md", "not one").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_names_the_file_and_the_field() {
        let cases = [
            ("id: telegram", "id: a b", "`id`"),
            ("id: telegram", "name: telegram", "`id`: is missing"),
            ("hs_token: \"0123\"", "hs_token: 123", "`hs_token`: is a number"),
            ("as_token: 7ZKSxAabeOPl", "as_token: \"a b\"", "`as_token`"),
            ("url: http://localhost:29317/", "url: localhost:29317", "`url`"),
            ("url: http://localhost:29317/", "", "`url`: is missing"),
            (
                "sender_localpart: ciWZmTMN",
                "sender_localpart: 'a:b'",
                "`sender_localpart`",
            ),
            ("rate_limited: false", "rate_limited: sometimes", "`rate_limited`"),
            (
                "'@telegrambot:example\\.org'",
                "'@telegram('",
                "`namespaces.users[1].regex`",
            ),
            (
                "    - exclusive: true\n      regex: '@telegrambot",
                "    - regex: '@telegrambot",
                "`namespaces.users[1].exclusive`",
            ),
            ("namespaces:", "namespace:", "`namespaces`: is missing"),
            ("id: telegram", "id: [telegram", "telegram.yaml"),
        ];
        for (before, after, named) in cases {
            assert!(BRIDGE.contains(before), "{before}");
            let error = load("telegram.yaml", &BRIDGE.replace(before, after)).unwrap_err();
            assert!(
                error.contains(named) && error.contains("telegram.yaml"),
                "{after}: {error}"
            );
            assert!(
                !error.contains('\n') && !error.contains("7ZKSxAabeOPl"),
                "{error}"
            );
        }
    }

    #[test]
    fn two_services_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let one = write("one.yaml", BRIDGE);
        for (before, after, field) in [
            ("7ZKSxAabeOPl", "other", "`id`"),
            ("id: telegram", "id: other", "`as_token`"),
        ] {
            let two = write("two.yaml", &BRIDGE.replace(before, after));
            let error = Registrations::load(&[one.clone(), two], server_name!("example.org")).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
