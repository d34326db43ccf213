//! Messages of other servers' devices to devices here: each is passed on once.

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::json;
use maru_protocol::wire::log::ToDevice;
use ruma::ServerName;
use serde_json::value::RawValue;

use crate::clock::Clock;
use crate::identity::Identity;
use crate::keys::{CONTENT_BYTES, SHARES_OF_DEVICE, device_message};
use crate::observe::metrics;
use crate::peers::dependencies::Dependencies;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::encryption::to_device;
use crate::store::encryption::to_device::Receivers;
use crate::store::federation::peer_messages::HeardMessage;
use crate::store::log::Record;

/// Bytes that the messages of one page may become: one to all devices of a user is stored for each of them. What goes
/// beyond is dropped, and takes none of those after it along.
const PASSED_ON_BYTES: usize = 32 << 20;

/// The reader of to-device messages in peers' logs.
#[derive(Debug)]
pub(in crate::peers) struct ToDeviceEdus {
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    store: Arc<Store>,
}

impl ToDeviceEdus {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            identity: Arc::clone(&dependencies.identity),
            clock: Arc::clone(&dependencies.clock),
            store: Arc::clone(&dependencies.store),
        }
    }

    /// What a peer's messages become, in their order: a message for each device that is meant, and a note that this one
    /// was heard. Those that are not the peer's to send, or malformed, are refused; those to devices that do not exist or
    /// do not read are dropped.
    pub(in crate::peers) async fn records_of(
        &self,
        peer: &ServerName,
        messages: Vec<ToDevice>,
    ) -> Result<Vec<Record>, Refusal> {
        let before = messages.len();
        let messages: Vec<_> = messages
            .into_iter()
            .filter(|message| self.may_pass_on(peer, message))
            .collect();
        metrics::PEER_ITEMS_REFUSED.add((before - messages.len()) as u64);
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let ids = messages.iter().map(|message| message.message_id.to_string());
        let mut heard = self.store.federation.heard_before(peer, ids.collect()).await?;
        let users: HashSet<String> = messages
            .iter()
            .map(|message| message.user_id.to_string())
            .collect();
        let senders: HashSet<String> = messages
            .iter()
            .map(|message| message.sender.to_string())
            .collect();
        let mut receivers = self
            .store
            .encryption
            .receivers(users.into_iter().collect(), senders, peer.to_owned())
            .await?;
        let now = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        let mut records = Vec::new();
        let mut bytes = 0;
        for message in messages {
            let message_id = message.message_id.to_string();
            if heard.contains(&message_id) {
                continue;
            }
            let copies = copies_of(peer, &message, &mut receivers)?;
            if copies.is_empty() {
                continue;
            }
            let all = copies.iter().map(|copy| copy.json.len()).sum::<usize>();
            if bytes + all > PASSED_ON_BYTES {
                metrics::PEER_ITEMS_REFUSED.add(1);
                continue;
            }
            bytes += all;
            heard.insert(message_id.clone());
            records.push(Record::HeardMessage(HeardMessage {
                server_name: peer.to_owned(),
                message_id,
                heard_at: now,
            }));
            records.extend(copies.into_iter().map(Record::ToDevice));
        }
        Ok(records)
    }

    fn may_pass_on(&self, peer: &ServerName, message: &ToDevice) -> bool {
        message.sender.server_name() == peer
            && self.identity.is_local(&message.user_id)
            && message.content.len() <= CONTENT_BYTES
            && ![&*message.message_id, &*message.event_type]
                .iter()
                .any(|text| text.contains('\0'))
    }
}

/// One message for each of the devices that are meant and have room for it; none of what is no JSON object.
fn copies_of(
    peer: &ServerName,
    message: &ToDevice,
    receivers: &mut Receivers,
) -> Result<Vec<to_device::ToDevice>, Refusal> {
    let content = serde_json::from_str::<&RawValue>(&message.content);
    let content = content
        .ok()
        .filter(|content| content.get().starts_with('{') && json::check(content.get().as_bytes()).is_ok());
    let Some(content) = content else {
        metrics::PEER_ITEMS_REFUSED.add(1);
        return Ok(Vec::new());
    };
    let json = device_message(&message.sender, &message.event_type, content)?;
    let of_user = receivers.devices.get(&message.user_id).into_iter().flatten();
    let is_meant = |device_id: &&String| message.device_id == "*" || message.device_id == device_id.as_str();
    let mut copies = Vec::new();
    for device_id in of_user.filter(is_meant) {
        let device = (message.user_id.clone(), device_id.clone());
        let (sender, server) = (message.sender.as_str(), Some(peer.as_str()));
        let shares = &SHARES_OF_DEVICE;
        if receivers
            .waiting
            .admit(&device, sender, server, json.len(), shares)
        {
            copies.push(to_device::ToDevice {
                user_id: message.user_id.clone(),
                device_id: device_id.clone(),
                sender: message.sender.clone(),
                server: Some(peer.to_owned()),
                json: json.clone(),
            });
        } else {
            metrics::TO_DEVICE_REFUSED.add(1);
        }
    }
    Ok(copies)
}
