//! The calls of the Matrix client API that the scenarios make.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::client::{Connection, Request};
use crate::error::LoadError;
use crate::scan::Field;
use crate::target::Target;

/// A registered account and one of its devices.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The local part of the user id.
    pub(crate) name: String,
    /// The access token of the device.
    pub(crate) token: String,
}

/// All accounts of a run share a password: they live on a throw-away server.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A room id and its spelling in paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// `!…`
    pub(crate) id: String,
    /// Percent-encoded.
    path: String,
}

/// A user on a connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// Who is calling.
    pub(crate) user: User,
    event_id: Field,
}

/// One page of `/messages`.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// Events, newest first when paging backwards.
    pub(crate) chunk: Vec<Event>,
}

/// What verification needs of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    /// `$…`
    pub(crate) event_id: String,
    /// `m.room.message` and others.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// By type.
    pub(crate) content: Value,
}

impl Event {
    /// The text of a message; empty for other events.
    pub(crate) fn text(&self) -> &str {
        if self.kind != "m.room.message" {
            return "";
        }
        self.content
            .get("body")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

impl Room {
    /// From an id that the server gave.
    pub(crate) fn new(id: String) -> Self {
        let path = format!("/_matrix/client/v3/rooms/{}", encode(&id));
        Self { id, path }
    }

    /// The path of something in it.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.path)
    }

    /// The same in another version of the API.
    pub(crate) fn path_of_version(&self, version: &str, rest: &str) -> String {
        self.path(rest).replacen("/v3/", &format!("/{version}/"), 1)
    }
}

impl Session {
    /// Connects at the first call.
    pub(crate) fn new(target: Arc<Target>, user: User) -> Self {
        Self {
            connection: Connection::new(target),
            user,
            event_id: Field::new("\"event_id\""),
        }
    }

    /// For sessions that long-poll: answers may come this much later than to ordinary requests.
    pub(crate) fn wait_longer(&mut self, by: Duration) {
        self.connection.wait_longer(by);
    }

    /// Calls and returns whatever the answer is.
    pub(crate) async fn call(
        &mut self,
        method: &'static str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Answer, LoadError> {
        let token = Some(self.user.token.as_str());
        self.connection
            .call(Request {
                method,
                path,
                token,
                body,
            })
            .await
    }

    /// Calls and returns the body of an answer with status 200.
    pub(crate) async fn fetch(
        &mut self,
        method: &'static str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Bytes, LoadError> {
        success(method, path, self.call(method, path, body).await?)
    }

    /// Who the token belongs to: the cheapest call that opens the connection and proves the token.
    pub(crate) async fn whoami(&mut self) -> Result<(), LoadError> {
        self.fetch("GET", "/_matrix/client/v3/account/whoami", None)
            .await
            .map(drop)
    }

    /// The user's full id.
    pub(crate) async fn user_id(&mut self) -> Result<String, LoadError> {
        let path = "/_matrix/client/v3/account/whoami";
        let body = self.fetch("GET", path, None).await?;
        text_of(&read_json(path, &body)?, "user_id")
    }

    /// The name of the user's homeserver.
    pub(crate) async fn server_name(&mut self) -> Result<String, LoadError> {
        let user_id = self.user_id().await?;
        let name = user_id.split_once(':').map(|(_, name)| name.to_owned());
        name.ok_or_else(|| LoadError::Protocol(format!("{user_id} is no user id")))
    }

    /// Makes a room that anyone may join.
    pub(crate) async fn create_room(&mut self) -> Result<Room, LoadError> {
        let path = "/_matrix/client/v3/createRoom";
        let body = self
            .fetch("POST", path, Some(br#"{"preset":"public_chat"}"#))
            .await?;
        Ok(Room::new(text_of(&read_json(path, &body)?, "room_id")?))
    }

    /// Joins a public room.
    pub(crate) async fn join(&mut self, room: &Room) -> Result<(), LoadError> {
        let path = format!("/_matrix/client/v3/join/{}", encode(&room.id));
        self.fetch("POST", &path, Some(b"{}")).await.map(drop)
    }

    /// Joins a public room through a homeserver that is in it.
    pub(crate) async fn join_through(&mut self, room: &Room, server_name: &str) -> Result<(), LoadError> {
        let path = format!(
            "/_matrix/client/v3/join/{}?via={}",
            encode(&room.id),
            encode(server_name)
        );
        self.fetch("POST", &path, Some(b"{}")).await.map(drop)
    }

    /// Who has joined a room, as the user's homeserver knows.
    pub(crate) async fn joined(&mut self, room: &Room) -> Result<BTreeSet<String>, LoadError> {
        let path = format!("{}/joined_members", room.path);
        let body = self.fetch("GET", &path, None).await?;
        let members = read_json(&path, &body)?;
        let joined = members.pointer("/joined").and_then(Value::as_object);
        Ok(joined
            .into_iter()
            .flat_map(serde_json::Map::keys)
            .cloned()
            .collect())
    }

    /// Sends a text message and returns the event id. The text must not need escaping in JSON.
    pub(crate) async fn send(
        &mut self,
        room: &Room,
        transaction: &str,
        text: &str,
    ) -> Result<String, LoadError> {
        let path = format!("{}/send/m.room.message/{transaction}", room.path);
        let content = format!(r#"{{"msgtype":"m.text","body":"{text}"}}"#);
        let body = self.fetch("PUT", &path, Some(content.as_bytes())).await?;
        self.event_id.of(&body).map(str::to_owned)
    }

    /// Tries to send; returns status and body whatever they are.
    pub(crate) async fn try_send(
        &mut self,
        room: &Room,
        transaction: &str,
        content: &Value,
    ) -> Result<Answer, LoadError> {
        let path = format!("{}/send/m.room.message/{transaction}", room.path);
        self.call("PUT", &path, Some(content.to_string().as_bytes()))
            .await
    }

    /// One event by its id.
    pub(crate) async fn event(&mut self, room: &Room, event_id: &str) -> Result<Event, LoadError> {
        let path = format!("{}/event/{}", room.path, encode(event_id));
        let body = self.fetch("GET", &path, None).await?;
        serde_json::from_slice(&body).map_err(LoadError::json(path))
    }

    /// One page of history backwards, unparsed. Without `from` it begins at the newest event.
    pub(crate) async fn messages(
        &mut self,
        room: &Room,
        from: Option<&str>,
        limit: usize,
    ) -> Result<Bytes, LoadError> {
        let from = from
            .map(|from| format!("&from={}", encode(from)))
            .unwrap_or_default();
        let path = format!("{}/messages?dir=b&limit={limit}{from}", room.path);
        self.fetch("GET", &path, None).await
    }

    /// A sync answer, unparsed. `filter` is a filter object in JSON.
    pub(crate) async fn sync(
        &mut self,
        since: Option<&str>,
        timeout: Duration,
        filter: Option<&str>,
    ) -> Result<Bytes, LoadError> {
        let since = since
            .map(|since| format!("&since={}", encode(since)))
            .unwrap_or_default();
        let filter = filter
            .map(|filter| format!("&filter={}", encode(filter)))
            .unwrap_or_default();
        let path = format!(
            "/_matrix/client/v3/sync?timeout={}{since}{filter}",
            timeout.as_millis()
        );
        self.fetch("GET", &path, None).await
    }

    /// The rooms that the user is in.
    pub(crate) async fn joined_rooms(&mut self) -> Result<Vec<String>, LoadError> {
        #[derive(Deserialize)]
        struct Joined {
            joined_rooms: Vec<String>,
        }
        let path = "/_matrix/client/v3/joined_rooms";
        let body = self.fetch("GET", path, None).await?;
        let joined: Joined = serde_json::from_slice(&body).map_err(LoadError::json(path))?;
        Ok(joined.joined_rooms)
    }

    /// A token that logs in one more device of the same user, if the server gives such tokens without asking for
    /// the password again.
    pub(crate) async fn login_token(&mut self) -> Result<Option<String>, LoadError> {
        let path = "/_matrix/client/v1/login/get_token";
        let answer = self.call("POST", path, Some(b"{}")).await?;
        if answer.status != 200 {
            return Ok(None);
        }
        text_of(&read_json(path, &answer.body)?, "login_token").map(Some)
    }
}

/// Registers an account, going through whatever stages the server asks for that a load driver can pass.
pub(crate) async fn register(
    connection: &mut Connection,
    name: &str,
    registration_token: Option<&str>,
) -> Result<User, LoadError> {
    let path = "/_matrix/client/v3/register";
    let mut body = json!({ "username": name, "password": PASSWORD });
    // A flow has few stages; a server that goes on asking is refused.
    for _ in 0..4 {
        let answer = post(connection, path, &body).await?;
        if answer.status != 401 {
            let account = read_json(path, &success("POST", path, answer)?)?;
            return user(name, &account);
        }
        body["auth"] = next_stage(&read_json(path, &answer.body)?, registration_token)?;
    }
    Err(LoadError::Protocol(
        "registration asks for stage after stage".into(),
    ))
}

/// Logs in a new device by password.
pub(crate) async fn login(connection: &mut Connection, name: &str) -> Result<User, LoadError> {
    let identifier = json!({ "type": "m.id.user", "user": name });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
    log_in(connection, name, &body).await
}

/// Logs in a new device by a token of [`Session::login_token`].
pub(crate) async fn login_by_token(
    connection: &mut Connection,
    name: &str,
    token: &str,
) -> Result<User, LoadError> {
    log_in(
        connection,
        name,
        &json!({ "type": "m.login.token", "token": token }),
    )
    .await
}

async fn log_in(connection: &mut Connection, name: &str, body: &Value) -> Result<User, LoadError> {
    let path = "/_matrix/client/v3/login";
    let answer = post(connection, path, body).await?;
    user(name, &read_json(path, &success("POST", path, answer)?)?)
}

async fn post(connection: &mut Connection, path: &str, body: &Value) -> Result<Answer, LoadError> {
    let body = body.to_string();
    connection
        .call(Request {
            method: "POST",
            path,
            token: None,
            body: Some(body.as_bytes()),
        })
        .await
}

/// The `auth` object for the first stage, of the first flow that can be passed, that is not done yet.
fn next_stage(asked: &Value, registration_token: Option<&str>) -> Result<Value, LoadError> {
    const TOKEN: &str = "m.login.registration_token";
    const DUMMY: &str = "m.login.dummy";
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let done = list(asked.get("completed"));
    let stage = list(asked.get("flows"))
        .iter()
        .map(|flow| list(flow.get("stages")))
        .find(|stages| {
            stages
                .iter()
                .all(|stage| stage == DUMMY || (stage == TOKEN && registration_token.is_some()))
        })
        .and_then(|stages| stages.into_iter().find(|stage| !done.contains(stage)))
        .ok_or_else(|| {
            LoadError::Usage("registration is neither open nor passed by --registration-token".into())
        })?;
    let session = asked.get("session").cloned().unwrap_or_default();
    Ok(if stage == TOKEN {
        json!({ "type": stage, "session": session, "token": registration_token })
    } else {
        json!({ "type": stage, "session": session })
    })
}

fn user(name: &str, account: &Value) -> Result<User, LoadError> {
    Ok(User {
        name: name.to_owned(),
        token: text_of(account, "access_token")?,
    })
}

fn text_of(object: &Value, field: &str) -> Result<String, LoadError> {
    let text = object.get(field).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| LoadError::Protocol(format!("an answer without {field}")))
}

/// Reads a whole answer as JSON; for set-up and verification only.
pub(crate) fn read_json(what: &str, body: &[u8]) -> Result<Value, LoadError> {
    serde_json::from_slice(body).map_err(LoadError::json(what))
}

fn success(method: &str, path: &str, answer: Answer) -> Result<Bytes, LoadError> {
    if answer.status == 200 {
        return Ok(answer.body);
    }
    let body = String::from_utf8_lossy(answer.body.get(..300).unwrap_or(&answer.body)).into_owned();
    Err(LoadError::Status {
        request: format!("{method} {path}"),
        status: answer.status,
        body,
    })
}

/// Percent-encodes everything that is not unreserved in URLs.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded_for_paths() {
        assert_eq!(encode("!aB-9:example.org/é"), "%21aB-9%3Aexample.org%2F%C3%A9");
    }

    #[test]
    fn stages_are_passed_in_order_and_unknown_ones_refused() {
        let flows = json!([{ "stages": ["m.login.email.identity"] },
                           { "stages": ["m.login.registration_token", "m.login.dummy"] }]);
        let asked = json!({ "session": "s", "flows": flows });
        assert!(next_stage(&asked, None).is_err());
        let first = next_stage(&asked, Some("secret")).unwrap();
        assert_eq!(
            first,
            json!({ "type": "m.login.registration_token", "session": "s", "token": "secret" })
        );
        let asked = json!({ "session": "s", "flows": flows, "completed": ["m.login.registration_token"] });
        let second = next_stage(&asked, Some("secret")).unwrap();
        assert_eq!(second, json!({ "type": "m.login.dummy", "session": "s" }));
    }
}
