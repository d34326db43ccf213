//! Devices and keys of other servers' users: word that they changed, and asking for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use maru_protocol::cursor::Position;
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::limits::{MAX_DEVICES, MAX_USERS};
use maru_protocol::wire::log::DeviceList;
use maru_protocol::wire::request::devices::{ClaimKey, ClaimKeys, DeviceListOf, Devices};
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use tokio::time::{Instant, timeout_at};

use crate::keys::{Claimed, FromOthers, OtherServers, UserKeys};
use crate::observe::metrics;
use crate::peers::dependencies::Dependencies;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::encryption::one_time_keys::Claim;
use crate::store::federation::remote_devices::RemoteDeviceList;
use crate::store::log::{DeviceListChange, Record};

/// How long somebody who asks for keys waits for other servers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Servers that are asked at the same time for one request of a client.
const SERVERS_AT_ONCE: usize = 16;

impl OtherServers for RemoteKeys {
    fn keys_of(&self, users: Vec<OwnedUserId>) -> BoxFuture<'_, Result<FromOthers<UserKeys>, Refusal>> {
        Box::pin(self.remote_keys(users))
    }

    fn claim_of(&self, claims: Vec<Claim>) -> BoxFuture<'_, Result<FromOthers<Claimed>, Refusal>> {
        Box::pin(async { Ok(self.claim_remote_keys(claims).await) })
    }
}

/// The reader of changed device lists in peers' logs.
#[derive(Debug)]
pub(in crate::peers) struct DeviceListEdus {
    store: Arc<Store>,
}

impl DeviceListEdus {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
        }
    }

    /// Word of changed device lists, for the users here who share a room with those users: they ask when they need the
    /// keys. A list that was known is in doubt from there on.
    pub(in crate::peers) async fn records_of(
        &self,
        peer: &ServerName,
        changed: Vec<DeviceList>,
    ) -> Result<Vec<Record>, Refusal> {
        let users: HashSet<String> = changed
            .iter()
            .filter(|change| change.user_id.server_name() == peer)
            .map(|change| change.user_id.to_string())
            .collect();
        let refused = changed
            .iter()
            .filter(|change| change.user_id.server_name() != peer);
        metrics::PEER_ITEMS_REFUSED.add(refused.count() as u64);
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let sharing = self
            .store
            .rooms
            .own_users_sharing(users.into_iter().collect(), i64::MAX)
            .await?;
        let change = |(user_id, tell): (_, Vec<_>)| {
            Record::DeviceList(DeviceListChange {
                user_id,
                own: false,
                tell: tell.into(),
                for_one: false,
                servers: [].into(),
            })
        };
        Ok(sharing.into_iter().map(change).collect())
    }
}

/// Devices and keys of other servers' users, requested from their servers.
#[derive(Debug)]
pub(in crate::peers) struct RemoteKeys {
    store: Arc<Store>,
    rpc: Arc<RpcClient>,
}

impl RemoteKeys {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            rpc: Arc::clone(&dependencies.rpc),
        }
    }

    /// The keys of users of other servers: those that are known to hold from the database, the others from their servers,
    /// and where one cannot be asked, what it said last.
    async fn remote_keys(&self, users: Vec<OwnedUserId>) -> Result<FromOthers<UserKeys>, Refusal> {
        let asked_at = self.store.log.position();
        let names = users.iter().map(ToString::to_string).collect();
        let mut known = self.store.federation.remote_device_lists(names).await?;
        let mut answered = FromOthers::default();
        let mut to_ask: BTreeMap<OwnedServerName, Vec<OwnedUserId>> = BTreeMap::new();
        for user_id in users {
            match known.get(&user_id) {
                Some((list, true)) => answered.found.push(parsed(list)?),
                _ => to_ask
                    .entry(user_id.server_name().to_owned())
                    .or_default()
                    .push(user_id),
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let asking = stream::iter(to_ask).map(|(server, users)| async move {
            let asked = timeout_at(deadline, self.request_keys(&server, &users, asked_at)).await;
            (server, users, asked.unwrap_or_else(|_| Err(late())))
        });
        let asked: Vec<_> = asking.buffer_unordered(SERVERS_AT_ONCE).collect().await;
        for (server, users, keys) in asked {
            match keys {
                Ok(keys) => answered.found.extend(keys),
                Err(refusal) => {
                    tracing::debug!(%server, %refusal, "keys could not be asked for");
                    let last = users.iter().filter_map(|user_id| known.remove(user_id));
                    for (list, _) in last {
                        answered.found.push(parsed(&list)?);
                    }
                    answered.unreachable.insert(server);
                }
            }
        }
        Ok(answered)
    }

    /// Asks a server for keys of its users, and keeps what it says. Whom it leaves out is asked for again next time: it may
    /// not know yet that the user shares a room with us.
    async fn request_keys(
        &self,
        server: &ServerName,
        users: &[OwnedUserId],
        asked_at: Position,
    ) -> Result<Vec<UserKeys>, Refusal> {
        let mut batches: Vec<&[OwnedUserId]> = users.chunks(MAX_USERS).collect();
        let mut lists = Vec::new();
        let mut found = Vec::new();
        while let Some(batch) = batches.pop() {
            let call = Devices {
                user_ids: batch.to_vec(),
            };
            let answer = match self.rpc.request(server, call).await {
                Ok(answer) => answer,
                Err(Refusal::TooLarge(_)) if batch.len() > 1 => {
                    let (one, other) = batch.split_at(batch.len() / 2);
                    batches.extend([one, other]);
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            for list in answer.users {
                if !batch.contains(&list.user_id) {
                    metrics::PEER_ITEMS_REFUSED.add(1);
                    continue;
                }
                let keys = keys_of(&list);
                lists.push(RemoteDeviceList {
                    user_id: list.user_id,
                    version: i64::try_from(list.version).unwrap_or(i64::MAX),
                    json: serde_json::to_string(&keys).map_err(Refusal::internal)?,
                });
                found.push(keys);
            }
        }
        if !lists.is_empty() {
            self.store
                .federation
                .put_remote_device_lists(server, lists, asked_at)
                .await?;
        }
        Ok(found)
    }

    /// Claims one-time keys of other servers' devices, at most one for each claim.
    async fn claim_remote_keys(&self, claims: Vec<Claim>) -> FromOthers<Claimed> {
        let mut to_ask: BTreeMap<OwnedServerName, Vec<Claim>> = BTreeMap::new();
        for claim in claims {
            let server = claim.user_id.server_name().to_owned();
            to_ask.entry(server).or_default().push(claim);
        }
        let deadline = Instant::now() + PATIENCE;
        let asking = stream::iter(to_ask).map(|(server, claims)| async move {
            let asked = timeout_at(deadline, self.claim_of_server(&server, claims)).await;
            (server, asked.unwrap_or_else(|_| Err(late())))
        });
        let asked: Vec<_> = asking.buffer_unordered(SERVERS_AT_ONCE).collect().await;
        let mut answered = FromOthers::default();
        for (server, claimed) in asked {
            match claimed {
                Ok(claimed) => answered.found.extend(claimed),
                Err(refusal) => {
                    tracing::debug!(%server, %refusal, "keys could not be claimed");
                    answered.unreachable.insert(server);
                }
            }
        }
        answered
    }

    async fn claim_of_server(
        &self,
        server: &ServerName,
        claims: Vec<Claim>,
    ) -> Result<Vec<Claimed>, Refusal> {
        let mut claimed = Vec::new();
        for batch in claims.chunks(MAX_DEVICES) {
            let wanted = batch.iter().filter_map(|claim| {
                Some(ClaimKey {
                    user_id: claim.user_id.clone(),
                    device_id: claim.device_id.as_str().into(),
                    algorithm: Text::new(&claim.algorithm)?,
                })
            });
            let call = ClaimKeys {
                keys: wanted.collect(),
            };
            let answer = self.rpc.request(server, call).await?;
            let mut open: HashMap<_, _> = batch
                .iter()
                .map(|claim| ((&*claim.user_id, claim.device_id.as_str()), claim))
                .collect();
            for key in &answer.keys {
                let claim = open.remove(&(&*key.user_id, key.device_id.as_str()));
                match claim.and_then(|claim| Claimed::checked(claim, &key.key_id, &key.key)) {
                    Some(key) => claimed.push(key),
                    None => metrics::PEER_ITEMS_REFUSED.add(1),
                }
            }
        }
        Ok(claimed)
    }
}

fn late() -> Refusal {
    Refusal::Unavailable("no answer in time".into())
}

/// A list as it was kept.
fn parsed(list: &RemoteDeviceList) -> Result<UserKeys, Refusal> {
    serde_json::from_str(&list.json).map_err(Refusal::internal)
}

/// A list as a server gave it.
fn keys_of(list: &DeviceListOf) -> UserKeys {
    let devices = list
        .devices
        .iter()
        .filter_map(|device| Some((device.device_id.as_str(), &**device.keys.as_ref()?)));
    let (master, self_signing) = (list.master_key.as_deref(), list.self_signing_key.as_deref());
    UserKeys::checked(&list.user_id, devices, master, self_signing)
}
