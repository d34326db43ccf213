//! Requests to one application service (Application Service API, "Homeserver -> Application Service API").

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::appservice_registrations::Registration;
use crate::https_client::{ServiceAnswer, ServiceClient, ServiceError};
use crate::refusal::Refusal;

/// Time for a transaction. Services deal with all of it before they answer.
const TRANSACTION: Duration = Duration::from_secs(25);

/// Time for an answer for which a user waits.
const QUESTION: Duration = Duration::from_secs(5);

/// Time for a ping.
const PING: Duration = Duration::from_secs(10);

/// What is passed on of an answer that is none, in bytes.
const SHOWN_BYTES: usize = 1_000;

/// An application service that listens.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) registration: Arc<Registration>,
    url: String,
    client: ServiceClient,
}

impl Service {
    /// The service of a registration; none for one that does not listen.
    pub(super) fn new(registration: &Arc<Registration>, client: &ServiceClient) -> Option<Self> {
        Some(Self {
            url: registration.url.clone()?,
            registration: Arc::clone(registration),
            client: client.clone(),
        })
    }

    fn address(&self, path: &str) -> String {
        format!("{}/_matrix/app/v1/{path}", self.url)
    }

    /// Sends a transaction. What the answer says beside its status counts for nothing.
    pub(super) async fn send(&self, id: &str, body: Bytes) -> Result<(), String> {
        let url = self.address(&format!("transactions/{id}"));
        let token = &self.registration.hs_token;
        match self.client.put(&url, token, body, TRANSACTION).await {
            Ok(answer) if answer.is_ok() => Ok(()),
            Ok(answer) => Err(format!("answered with status {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks whether it is there: how long that took.
    pub(super) async fn ping(&self, transaction_id: Option<String>) -> Result<Duration, Refusal> {
        let body = transaction_id.map_or_else(|| json!({}), |id| json!({ "transaction_id": id }));
        let (began, url) = (Instant::now(), self.address("ping"));
        let token = &self.registration.hs_token;
        let asked = self.client.post(&url, token, body.to_string().into(), PING);
        match asked.await {
            Ok(answer) if answer.is_ok() => Ok(began.elapsed()),
            Ok(ServiceAnswer { status, body }) => {
                let shown = body.get(..SHOWN_BYTES).unwrap_or(&body);
                let body = String::from_utf8_lossy(shown).into_owned();
                Err(Refusal::BadStatus { status, body })
            }
            Err(error @ ServiceError::TimedOut(_)) => Err(Refusal::ConnectionTimedOut(error.to_string())),
            Err(error) => Err(Refusal::ConnectionFailed(error.to_string())),
        }
    }

    /// Whether it has something by a path, now that it was asked.
    pub(super) async fn has(&self, kind: &str, name: &str) -> bool {
        self.get(&format!("{kind}/{}", encode(name))).await.is_some()
    }

    /// The JSON at a path; none where the service has none, or does not answer.
    pub(super) async fn get(&self, path: &str) -> Option<Value> {
        let url = self.address(path);
        let answer = self.client.get(&url, &self.registration.hs_token, QUESTION).await;
        match answer {
            Ok(answer) if answer.is_ok() => Some(serde_json::from_slice(&answer.body).unwrap_or(Value::Null)),
            Ok(_) => None,
            Err(error) => {
                let service = &*self.registration.id;
                tracing::warn!(service, %error, "an application service does not answer a question");
                None
            }
        }
    }
}

/// A name as it stands in a path or a query.
pub(super) fn encode(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(encode("#a b/ä:x.org"), "%23a%20b%2F%C3%A4%3Ax.org");
        assert_eq!(encode("a-b.c_d~1"), "a-b.c_d~1");
    }
}
