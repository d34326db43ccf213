//! Messages to single devices, mostly encrypted keys (client-server API, "Send-to-Device messaging").

use std::collections::BTreeMap;
use std::time::Duration;

use maru_protocol::limits::DEFAULT_MAX_EVENT_BYTES;
use ruma::{OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{Keys, check_name};
use crate::accounts::Caller;
use crate::observe::metrics;
use crate::refusal::Refusal;
use crate::store::encryption::to_device::{Addressed, Sending};
use crate::store::federation::peer_messages::PeerMessage;
use crate::store::waiting_quota::{QueueLimits, Shares};

/// Messages that may wait for one device, of everybody together: what one sync may carry.
pub const WAITING: usize = 20_000;

/// Largest content of a message, in bytes: that of an event.
pub const CONTENT_BYTES: usize = DEFAULT_MAX_EVENT_BYTES;

/// Messages of one sender that may wait for one device.
const OF_SENDER: i64 = 1_000;

/// Bytes of messages of one sender that may wait for one device.
const BYTES_OF_SENDER: i64 = 4 << 20;

/// Messages of one sender that may wait for one device even when others have filled it.
const CERTAIN: i64 = 50;

/// Bytes of messages of one sender that may wait for one device even when others have filled it.
const BYTES_CERTAIN: i64 = 256 << 10;

/// Messages of all senders of one other server that may wait for one device.
const OF_SERVER: i64 = 4_000;

/// Bytes of messages of all senders of one other server that may wait for one device.
const BYTES_OF_SERVER: i64 = 16 << 20;

/// Messages that may wait for one device before there is room only for what is certain.
const OF_ALL: i64 = 10_000;

/// Bytes of messages that may wait for one device before there is room only for what is certain.
const BYTES_OF_ALL: i64 = 32 << 20;

/// Bytes of messages that may wait for one device, of everybody together.
const BYTES_WAITING: i64 = 64 << 20;

/// What may wait for one device: whoever floods it is refused, and its friends are not.
pub const SHARES_OF_DEVICE: Shares = Shares {
    of_sender: limits(OF_SENDER, BYTES_OF_SENDER),
    certain: limits(CERTAIN, BYTES_CERTAIN),
    of_server: limits(OF_SERVER, BYTES_OF_SERVER),
    of_all: limits(OF_ALL, BYTES_OF_ALL),
    most: limits(WAITING as i64, BYTES_WAITING),
};

/// Messages to devices of one other server that may wait for it before there is room only for what is certain.
const FOR_SERVER: i64 = 50_000;

/// Bytes of messages to devices of one other server that may wait for it before there is room only for what is certain.
const BYTES_FOR_SERVER: i64 = 64 << 20;

/// What may wait for one other server, all of it by senders of this one: one of them has a fifth, a hundredth of that is
/// certain, and half as much again there may be at most.
const SHARES_FOR_SERVER: Shares = Shares {
    of_sender: limits(FOR_SERVER / 5, BYTES_FOR_SERVER / 5),
    certain: limits(FOR_SERVER / 500, BYTES_FOR_SERVER / 500),
    of_server: limits(0, 0),
    of_all: limits(FOR_SERVER, BYTES_FOR_SERVER),
    most: limits(FOR_SERVER / 2 * 3, BYTES_FOR_SERVER / 2 * 3),
};

const fn limits(messages: i64, bytes: i64) -> QueueLimits {
    QueueLimits { messages, bytes }
}

/// How long a sender is asked to wait when nothing is taken: until the device has synced, which nobody knows.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Receivers of one request.
const RECEIVERS: usize = 10_000;

impl Keys {
    /// Sends a message to devices, once per type and transaction id. Each receiver is a user, a device id or `*` for all of the
    /// user's devices, and the content. Devices that do not exist are passed over, and so are users of other servers who
    /// share no room with the caller: nobody makes this server keep messages for whom it does not know. Devices for which
    /// too much waits are returned, and the others get the message: one that nobody reads any more must not keep it from
    /// them.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for malformed names, [`Refusal::BadJson`] for a content that is no object,
    /// [`Refusal::TooLarge`] for too many receivers or too long a content; [`Refusal::LimitExceeded`] when too much waits
    /// for all of them: then nothing has happened, and the same transaction id can be tried again.
    pub async fn send_to_device(
        &self,
        caller: &Caller,
        event_type: &str,
        transaction_id: String,
        receivers: Vec<(OwnedUserId, String, Box<RawValue>)>,
    ) -> Result<BTreeMap<OwnedUserId, Vec<String>>, Refusal> {
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
            check_content(content.get())?;
            if self.identity.is_local(&user_id) {
                messages.push(Addressed {
                    user_id,
                    device,
                    json: device_message(&caller.user_id, event_type, &content)?,
                });
                continue;
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
            .rooms
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
        let sent = self
            .store
            .encryption
            .send_to_device(sending, SHARES_OF_DEVICE, SHARES_FOR_SERVER)
            .await?;
        let refused: usize = sent.refused.values().map(Vec::len).sum();
        metrics::TO_DEVICE_REFUSED.add(refused as u64);
        if sent.taken == 0 && refused > 0 {
            return Err(Refusal::LimitExceeded {
                retry_after: RETRY_AFTER,
            });
        }
        Ok(sent.refused)
    }
}

fn check_content(content: &str) -> Result<(), Refusal> {
    if content.len() > CONTENT_BYTES {
        let why = format!("the content of a message has at most {CONTENT_BYTES} bytes");
        return Err(Refusal::TooLarge(why));
    }
    if !content.starts_with('{') {
        return Err(Refusal::BadJson(
            "the content of a message is a JSON object".into(),
        ));
    }
    Ok(())
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
