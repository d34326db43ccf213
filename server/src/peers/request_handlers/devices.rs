//! Devices and one-time keys of this server's users, for servers that share a room with them.

use std::collections::HashSet;

use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::limits::MAX_DEVICES;
use maru_protocol::wire::request::devices::{
    ClaimKeys, ClaimedKey, ClaimedKeys, Device, DeviceListOf, DeviceLists, Devices,
};
use ruma::{OwnedUserId, ServerName};

use crate::keys::UserKeys;
use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;
use crate::store::encryption::one_time_keys::Claim;

impl RequestHandlers {
    /// The devices and public keys of users. Those who share no room with the peer are left out, as if they did not exist.
    pub(super) async fn devices(&self, peer: &ServerName, call: Devices) -> Result<DeviceLists, Refusal> {
        let users = self.users_near(peer, call.user_ids).await?;
        let users: Vec<_> = users.into_iter().collect();
        let lists = self.keys.for_peers(&users).await?;
        Ok(DeviceLists {
            users: lists.into_iter().map(list_of).collect(),
        })
    }

    /// Hands out one-time keys, each once.
    pub(super) async fn claim_keys(
        &self,
        peer: &ServerName,
        call: ClaimKeys,
    ) -> Result<ClaimedKeys, Refusal> {
        let users = call.keys.iter().map(|wanted| wanted.user_id.clone()).collect();
        let near = self.users_near(peer, users).await?;
        let claims = call
            .keys
            .into_iter()
            .filter(|wanted| near.contains(&wanted.user_id));
        let claims = claims.map(|wanted| Claim {
            user_id: wanted.user_id,
            device_id: wanted.device_id.to_string(),
            algorithm: wanted.algorithm.to_string(),
        });
        let claimed = self.keys.hand_out(claims.collect()).await?;
        let keys = claimed.into_iter().filter_map(|claimed| {
            Some(ClaimedKey {
                user_id: claimed.user_id,
                device_id: claimed.device_id.into(),
                key_id: Text::new(&claimed.key_id)?,
                key: claimed.json.as_str().into(),
            })
        });
        Ok(ClaimedKeys { keys: keys.collect() })
    }

    /// Those of the users, of this server, who share a room with a peer.
    async fn users_near(
        &self,
        peer: &ServerName,
        users: Vec<OwnedUserId>,
    ) -> Result<HashSet<OwnedUserId>, Refusal> {
        let own = users.iter().filter(|user_id| self.identity.is_local(user_id));
        let own = own.map(ToString::to_string).collect();
        Ok(self.store.rooms.sharing_with_server(peer, own).await?)
    }
}

fn list_of((keys, version): (UserKeys, i64)) -> DeviceListOf {
    let json = |key: serde_json::Value| Json::from(key.to_string().as_str());
    let device = |(device_id, keys): (String, serde_json::Value)| Device {
        device_id: device_id.into(),
        keys: Some(json(keys)),
        display_name: None,
    };
    DeviceListOf {
        user_id: keys.user_id,
        version: u64::try_from(version).unwrap_or(0),
        devices: keys.devices.into_iter().take(MAX_DEVICES).map(device).collect(),
        master_key: keys.master.map(json),
        self_signing_key: keys.self_signing.map(json),
    }
}
