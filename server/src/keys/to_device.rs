//! Messages to single devices, mostly encrypted keys (client-server API, "Send-to-Device messaging").

use ruma::OwnedUserId;
use serde_json::value::RawValue;

use super::{Keys, check_name};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::to_device::Addressed;

/// Messages that may wait for one device; further ones are dropped until it syncs.
const WAITING: i64 = 10_000;

/// Receivers of one request.
const RECEIVERS: usize = 10_000;

impl Keys {
    /// Sends a message to devices, once per transaction id. Each receiver is a user, a device id or `*` for all of the
    /// user's devices, and the content. Devices that do not exist are passed over.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for malformed names, [`Refusal::TooLarge`] for too many receivers.
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
        #[derive(serde::Serialize)]
        struct Message<'a> {
            content: &'a RawValue,
            sender: &'a ruma::UserId,
            #[serde(rename = "type")]
            event_type: &'a str,
        }
        let mut messages = Vec::with_capacity(receivers.len());
        for (user_id, device, content) in receivers {
            check_name(&device)?;
            let message = Message {
                content: &content,
                sender: &caller.user_id,
                event_type,
            };
            if self.identity.is_local(&user_id) {
                messages.push(Addressed {
                    user_id,
                    device,
                    json: serde_json::to_string(&message).map_err(Refusal::internal)?,
                });
            }
        }
        let now = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        let (sender, device) = (&caller.user_id, &caller.device_id);
        self.store
            .send_to_device(sender, device, transaction_id, messages, WAITING, now)
            .await?;
        Ok(())
    }
}
