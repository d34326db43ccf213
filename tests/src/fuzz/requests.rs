//! Whole requests of the client API, through the real router in this process.
//!
//! The first line of an input is method, path and query; the rest is the body. `{room}` and the other names of
//! [`Fixture`] stand for what exists on the server, so that inputs get past the first look-up.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, Request, header};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::user::encode;
use crate::{Reply, TestServer, User};

/// The longest that any request but a waiting sync may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// No request makes the server fail: the status is below 500, and a refusal says why in the specified form.
pub fn requests(input: &[u8]) {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    let fixture = FIXTURE.get_or_init(Fixture::new);
    if let Some(request) = fixture.known.request(input) {
        fixture.runtime.block_on(fixture.known.check(request));
    }
}

/// What exists on a server, and the names under which inputs reach it.
#[derive(Debug)]
pub struct Known {
    /// Whose requests they are.
    pub alice: User,
    names: Vec<(&'static str, String)>,
}

impl Known {
    /// Makes two people, a room and a message on a server.
    pub async fn on(server: &TestServer) -> Self {
        let [alice, bob] = [server.user("alice").await, server.user("bob").await];
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let event = alice.send(&room, "hello").await;
        let names = vec![
            ("{room}", room),
            ("{event}", event),
            ("{user}", alice.id.clone()),
            ("{device}", alice.device.clone()),
            ("{peer}", bob.id.clone()),
            ("{password}", alice.password.clone()),
        ];
        Self { alice, names }
    }

    /// The request that an input spells, if it is one.
    #[must_use]
    pub fn request(&self, input: &[u8]) -> Option<Request<bytes::Bytes>> {
        let at = input
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(input.len());
        let (line, body) = (&input[..at], input.get(at + 1..).unwrap_or_default());
        let (method, path) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let path = self.filled(path, encode);
        let path = match path.starts_with('/') {
            true => path,
            false => format!("/_matrix/client/v3/{path}"),
        };
        // A body that is no text goes as it is.
        let body = match std::str::from_utf8(body) {
            Ok(text) => self.filled(text, str::to_owned).into_bytes(),
            Err(_) => body.to_vec(),
        };
        Request::builder()
            .method(Method::from_bytes(method.as_bytes()).ok()?)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.alice.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .ok()
    }

    fn filled(&self, text: &str, spelt: impl Fn(&str) -> String) -> String {
        let fill = |text: String, (name, value): &(&str, String)| text.replace(name, &spelt(value));
        self.names.iter().fold(text.to_owned(), fill)
    }

    /// Makes a request and checks its answer.
    ///
    /// # Panics
    /// When there is none in time, or it breaks a promise.
    pub async fn check(&self, request: Request<bytes::Bytes>) -> Option<Reply> {
        let shown = format!("{} {}", request.method(), request.uri());
        let waits = request.uri().path().ends_with("/sync");
        match tokio::time::timeout(PATIENCE, self.alice.api.send(request)).await {
            Ok(Ok(reply)) => {
                check_reply(&shown, &reply);
                return Some(reply);
            }
            Ok(Err(error)) => panic!("{shown}: no answer: {error}"),
            Err(_) => assert!(waits, "{shown}: no answer within {PATIENCE:?}"),
        }
        None
    }
}

/// A server with something on it.
#[derive(Debug)]
struct Fixture {
    runtime: Runtime,
    known: Known,
    // Last, so that everything else is gone when its data folder is removed.
    _server: TestServer,
}

impl Fixture {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (server, known) = runtime.block_on(async {
            let server = TestServer::start().await;
            let known = Known::on(&server).await;
            (server, known)
        });
        Self {
            runtime,
            known,
            _server: server,
        }
    }
}

fn check_reply(request: &str, reply: &Reply) {
    let body = String::from_utf8_lossy(&reply.body);
    let status = reply.status.as_u16();
    assert!(status < 500, "{request}: {status} {body}");
    // An interactive-authentication challenge is no refusal: it names the flows instead.
    if status < 400 || reply.json.get("flows").is_some() {
        return;
    }
    let errcode = reply.json["errcode"].as_str().unwrap_or_default();
    let known = errcode.starts_with("M_") || errcode.starts_with("MARU_");
    assert!(known, "{request}: {status} without errcode: {body}");
    let sentence = reply.json["error"].as_str().unwrap_or_default();
    assert!(
        !sentence.is_empty(),
        "{request}: {status} {errcode} without a sentence"
    );
}
