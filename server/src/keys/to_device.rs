//! Messages to single devices, mostly encrypted keys (client-server API, "Send-to-Device messaging").

use ruma::{OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{Keys, check_name};
use crate::accounts::Caller;
use crate::observe::metrics;
use crate::refusal::Refusal;
use crate::store::peer_messages::{PeerMessage, QueueLimits};
use crate::store::to_device::{Addressed, Sending};

/// Messages that may wait for one device; further ones are dropped until it syncs.
pub const WAITING: i64 = 10_000;

/// Largest content of a message between servers, in bytes.
pub const CONTENT_BYTES: usize = 65_536;

/// What may wait for one other server; further messages are dropped until it has taken some.
const WAITING_FOR_SERVER: QueueLimits = QueueLimits {
    messages: 50_000,
    bytes: 64 << 20,
};

/// Receivers of one request.
const RECEIVERS: usize = 10_000;

impl Keys {
    /// Sends a message to devices, once per type and transaction id. Each receiver is a user, a device id or `*` for all of the
    /// user's devices, and the content. Devices that do not exist are passed over, and so are users of other servers who
    /// share no room with the caller: nobody makes this server keep messages for whom it does not know.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for malformed names, [`Refusal::TooLarge`] for too many receivers, or too much for
    /// another server.
    pub async fn send_to_device(
        &self,
        caller: &Caller,
        event_type: &str,
        transaction_id: String,
        receivers: Vec<(OwnedUserId, String, Box<RawValue>)>,
    ) -> Result<(), Refusal> {
        check_name(event_type)?;
        check_name(&transaction_id)?;
        if receivers.len() > RECEIVERS {
            let why = format!("a message has at most {RECEIVERS} receivers");
            return Err(Refusal::TooLarge(why));
        }
        let now = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        let mut messages = Vec::with_capacity(receivers.len());
        let mut elsewhere = Vec::new();
        for (user_id, device, content) in receivers {
            check_name(&device)?;
            if self.identity.is_local(&user_id) {
                messages.push(Addressed {
                    user_id,
                    device,
                    json: device_message(&caller.user_id, event_type, &content)?,
                });
                continue;
            }
            if content.get().len() > CONTENT_BYTES {
                let why = format!("a message to another server has at most {CONTENT_BYTES} bytes");
                return Err(Refusal::TooLarge(why));
            }
            elsewhere.push(PeerMessage {
                server_name: user_id.server_name().to_owned(),
                message_id: format!("{:032x}", rand::random::<u128>()),
                sender: caller.user_id.clone(),
                user_id,
                device_id: device,
                event_type: event_type.to_owned(),
                content: content.get().to_owned(),
                sent_at: now,
            });
        }
        let others = elsewhere.iter().map(|message| message.user_id.to_string());
        let known = self
            .store
            .sharing_rooms(&caller.user_id, others.collect())
            .await?;
        elsewhere.retain(|message| known.contains(&message.user_id));
        let sending = Sending {
            sender: caller.user_id.clone(),
            sender_device: caller.device_id.clone(),
            event_type: event_type.to_owned(),
            transaction_id,
            messages,
            elsewhere,
            now_ms: now,
        };
        let dropped = self
            .store
            .send_to_device(sending, WAITING, WAITING_FOR_SERVER)
            .await?;
        metrics::PEER_MESSAGES_DROPPED.add(dropped);
        Ok(())
    }
}

/// A message as the device will read it.
///
/// # Errors
/// Only where it is no JSON.
pub fn device_message(sender: &UserId, event_type: &str, content: &RawValue) -> Result<String, Refusal> {
    #[derive(serde::Serialize)]
    struct Message<'a> {
        content: &'a RawValue,
        sender: &'a UserId,
        #[serde(rename = "type")]
        event_type: &'a str,
    }
    let message = Message {
        content,
        sender,
        event_type,
    };
    serde_json::to_string(&message).map_err(Refusal::internal)
}
