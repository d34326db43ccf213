//! What a client may send over the WebSocket, and what becomes of it (`spec/websocket-sync.md`, "Client frames").

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::SinceToken;
use ruma::events::receipt::ReceiptThread;
use ruma::presence::PresenceState;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::accounts::Caller;
use crate::http::codec::error::on_the_wire;
use crate::http::rooms::sending::{content, sending};
use crate::http::user_data::receipts::mark;
use crate::limits::spending;
use crate::refusal::Refusal;
use crate::rooms::Sender;
use crate::server::Server;

/// How long somebody types who does not say.
const DEFAULT_TYPING_MS: u64 = 30_000;

/// A frame of a client.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Everything up to a cursor has been dealt with.
    Ack {
        /// The `next_batch` of a sync frame.
        next_batch: String,
    },
    /// Sends a message event.
    Send {
        /// Repeated in the reply.
        id: u64,
        /// The room.
        room_id: OwnedRoomId,
        /// The event type.
        event_type: String,
        /// As in the HTTP API: a retry with the same id, here or there, makes no second event.
        txn_id: String,
        /// The content; read beside the other members, because a tagged enum cannot hold unread JSON.
        #[serde(skip)]
        content: Option<Box<RawValue>>,
    },
    /// Starts or stops typing.
    Typing {
        /// The room.
        room_id: OwnedRoomId,
        /// Whether the user is typing.
        typing: bool,
        /// For how long, in milliseconds.
        #[serde(default)]
        timeout: Option<u64>,
    },
    /// The user has read up to an event.
    Receipt {
        /// Repeated in the reply.
        id: u64,
        /// The room.
        room_id: OwnedRoomId,
        /// `m.read`, `m.read.private` or `m.fully_read`.
        receipt_type: String,
        /// The event.
        event_id: OwnedEventId,
        /// `main` or the root of a thread.
        #[serde(default)]
        thread_id: Option<String>,
    },
    /// The user is there.
    Heartbeat {
        /// `online` or `unavailable`.
        #[serde(default)]
        presence: Option<String>,
    },
}

/// What became of a frame.
pub(in crate::http) enum Outcome {
    /// The client has dealt with everything up to this cursor.
    Acknowledged(SinceToken),
    /// The text of a frame to answer with.
    Reply(String),
    /// Nothing to say.
    Silent,
    /// The client does not keep to the protocol, with a sentence that says how.
    Violation(String),
}

impl ClientFrame {
    /// Its `type`, by which it stands among [`spending::FRAMES`].
    fn name(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "ack",
            Self::Send { .. } => "send",
            Self::Typing { .. } => "typing",
            Self::Receipt { .. } => "receipt",
            Self::Heartbeat { .. } => "heartbeat",
        }
    }

    /// The id by which the client knows the reply.
    fn id(&self) -> Option<u64> {
        match self {
            Self::Send { id, .. } | Self::Receipt { id, .. } => Some(*id),
            Self::Ack { .. } | Self::Typing { .. } | Self::Heartbeat { .. } => None,
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Carried {
            content: Option<Box<RawValue>>,
        }
        let unreadable = |error| format!("this frame cannot be read: {error}");
        let mut frame = serde_json::from_str(text).map_err(unreadable)?;
        if let Self::Send { content, .. } = &mut frame {
            *content = serde_json::from_str::<Carried>(text).map_err(unreadable)?.content;
        }
        Ok(frame)
    }
}

/// Spends what a frame costs, then does what it asks for.
pub(in crate::http) async fn perform(server: &Arc<Server>, caller: &Caller, frame: ClientFrame) -> Outcome {
    let row = spending::FRAMES.iter().find(|(name, _)| *name == frame.name());
    if let Some(Err(too_many)) = row.map(|(_, budget)| server.budgets.spend(*budget, &caller.user_id)) {
        return Outcome::Reply(refused(frame.id(), &too_many.into()));
    }
    match frame {
        ClientFrame::Ack { next_batch } => match next_batch.parse() {
            Ok(cursor) => Outcome::Acknowledged(cursor),
            Err(_) => Outcome::Violation("this is no cursor".into()),
        },
        ClientFrame::Send {
            id,
            room_id,
            event_type,
            txn_id,
            content,
        } => {
            let sent = Box::pin(send(
                server,
                caller,
                &room_id,
                &event_type,
                &txn_id,
                content.as_deref(),
            ))
            .await;
            Outcome::Reply(match sent {
                Ok(event_id) => json!({ "type": "reply", "id": id, "event_id": event_id }).to_string(),
                Err(refusal) => refused(Some(id), &refusal),
            })
        }
        ClientFrame::Receipt {
            id,
            room_id,
            receipt_type,
            event_id,
            thread_id,
        } => {
            let set = async {
                let thread = ReceiptThread::try_from(thread_id)
                    .map_err(|_| Refusal::invalid("thread_id is \"main\" or the root of a thread"))?;
                let mark = mark(&receipt_type.into(), thread)?;
                server
                    .receipts
                    .set(&caller.user_id, &room_id, vec![(mark, event_id)])
                    .await
            };
            Outcome::Reply(match Box::pin(set).await {
                Ok(()) => json!({ "type": "reply", "id": id }).to_string(),
                Err(refusal) => refused(Some(id), &refusal),
            })
        }
        ClientFrame::Typing {
            room_id,
            typing,
            timeout,
        } => {
            let timeout = typing.then(|| Duration::from_millis(timeout.unwrap_or(DEFAULT_TYPING_MS)));
            let set = async {
                server.typing.set(
                    &server.rooms.repository.room(&room_id).await?,
                    &caller.user_id,
                    timeout,
                )
            };
            match Box::pin(set).await {
                Ok(()) => Outcome::Silent,
                Err(refusal) => Outcome::Reply(refused(None, &refusal)),
            }
        }
        ClientFrame::Heartbeat { presence } => {
            let presence = presence.map(PresenceState::from).unwrap_or_default();
            server.presence.heartbeat(&caller.user_id, &presence);
            Outcome::Silent
        }
    }
}

async fn send(
    server: &Server,
    caller: &Caller,
    room_id: &ruma::RoomId,
    event_type: &str,
    txn_id: &str,
    body: Option<&RawValue>,
) -> Result<OwnedEventId, Refusal> {
    let room = server.rooms.repository.room(room_id).await?;
    let transaction = sending(caller, &room, event_type, txn_id);
    let body = body.ok_or_else(|| Refusal::BadJson("a message needs content".into()))?;
    let content = content(body.get())?;
    let stored = server
        .rooms
        .appender
        .send(
            &room,
            Sender::now(&caller.user_id),
            event_type,
            content,
            Some(&transaction),
        )
        .await?;
    Ok(stored.event.id.clone())
}

/// An error frame.
fn refused(id: Option<u64>, refusal: &Refusal) -> String {
    let (_, errcode) = on_the_wire(refusal);
    let mut frame = json!({ "type": "error", "errcode": errcode, "error": refusal.to_string() });
    if let Some(id) = id {
        frame["id"] = json!(id);
    }
    if let Refusal::LimitExceeded { retry_after } = refusal {
        frame["retry_after_ms"] = json!(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
    }
    frame.to_string()
}

#[cfg(test)]
mod tests {
    use crate::http::syncing::websocket_frames::ClientFrame;
    use crate::limits::spending;

    #[test]
    fn every_frame_spends_something() {
        let frames = [
            r#"{"type":"ack","next_batch":"c"}"#,
            r#"{"type":"send","id":7,"room_id":"!r:x","event_type":"m","txn_id":"t"}"#,
            r#"{"type":"typing","room_id":"!r:x","typing":true}"#,
            r#"{"type":"receipt","id":7,"room_id":"!r:x","receipt_type":"m.read","event_id":"$e"}"#,
            r#"{"type":"heartbeat"}"#,
        ];
        for text in frames {
            let name = ClientFrame::parse(text).unwrap().name();
            assert!(text.contains(&format!("\"{name}\"")), "{text}");
            assert!(spending::FRAMES.iter().any(|(row, _)| *row == name), "{text}");
        }
        assert_eq!(spending::FRAMES.len(), frames.len());
    }

    #[test]
    fn a_message_keeps_its_content() {
        let text = r#"{"type":"send","id":7,"room_id":"!r:x","event_type":"m.room.message","txn_id":"t",
            "content":{"body":"안녕","n":1}}"#;
        let Ok(ClientFrame::Send {
            id: 7,
            content: Some(content),
            ..
        }) = ClientFrame::parse(text)
        else {
            panic!("not read as a message");
        };
        assert_eq!(content.get(), r#"{"body":"안녕","n":1}"#);
    }

    #[test]
    fn what_is_no_frame_is_refused_with_a_reason() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"type":"shout"}"#,
            r#"{"type":"send","id":1}"#,
            "{\"type\":\"ack\"",
        ] {
            assert!(
                ClientFrame::parse(text).is_err_and(|why| why.len() > 10),
                "{text}"
            );
        }
    }
}
