//! What the admin asks of peers, and is told.

use std::collections::BTreeMap;
use std::time::Duration;

use maru_federation::pool::PeerState;
use maru_protocol::PublicKey;
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::config::PeerAddress;
use crate::peers::{PeerSeen, RefusedKey};
use crate::refusal::Refusal;
use crate::server::Server;

/// What to do with peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum PeerCommand {
    /// List all that are named, were met since the start, or were refused for a key.
    List,
    /// Connect with one and ask it something.
    Ping {
        /// Its name.
        name: String,
    },
    /// Add one for good, or change its addresses.
    Add {
        /// Its name.
        name: String,
        /// Where it is: addresses or host names, with ports.
        addresses: Vec<String>,
        /// Its root key in base64, for a domain that does not publish it.
        key: Option<String>,
    },
    /// Forget one that was added.
    Remove {
        /// Its name.
        name: String,
    },
    /// Accept another root key for a domain.
    Trust {
        /// Its name.
        name: String,
        /// The root key in base64.
        key: String,
    },
}

/// One peer in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLine {
    /// Its name.
    pub name: String,
    /// How it is connected: `idle`, `dialling`, `waiting`, `greeting` or `connected`; `unmet` when nobody has wanted it
    /// since the start.
    pub state: String,
    /// The address of the connection.
    pub path: Option<String>,
    /// The round trip of the connection, in microseconds.
    pub round_trip_us: Option<u64>,
    /// For how long it is connected, or how long until it is dialled again, in seconds.
    pub seconds: Option<u64>,
    /// Positions of our log that it is behind, if it has said how far it is.
    pub lag: Option<u64>,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
    /// `configuration` or `admin`: who named it.
    pub named_by: Option<String>,
    /// Its root key in base64, if it is known.
    pub root_key: Option<String>,
    /// Who came under its name with another key.
    pub refused: Option<RefusedLine>,
}

/// A key that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLine {
    /// The root key in base64.
    pub root_key: String,
    /// Why.
    pub reason: String,
    /// How often since the start.
    pub count: u64,
    /// How long ago the last time was.
    pub seconds_ago: u64,
}

/// Does what a command asks for.
pub(super) async fn execute(server: &Server, command: PeerCommand) -> Result<AdminReply, Refusal> {
    let peers = &server.peers.admin;
    let done = |message| Ok(AdminReply::Done { message });
    match command {
        PeerCommand::List => Ok(list(server)),
        PeerCommand::Ping { name } => {
            let name = read_name(&name)?;
            let pong = peers.ping(&name).await?;
            let answered = milliseconds(pong.answered);
            let Some((connected, view)) = pong.connected else {
                return done(format!("{name}, by the node that leads: answers in {answered}"));
            };
            let connected = milliseconds(connected);
            let path = view.path.map_or("nowhere".to_owned(), |path| path.to_string());
            done(format!(
                "{name} at {path}: connected in {connected}, answers in {answered}"
            ))
        }
        PeerCommand::Add { name, addresses, key } => {
            let name = read_name(&name)?;
            let addresses: Result<Vec<PeerAddress>, _> = addresses.iter().map(|text| text.parse()).collect();
            let addresses = addresses.map_err(|error| Refusal::invalid(error.to_string()))?;
            let key = key.as_deref().map(read_key).transpose()?;
            peers.add_peer(&name, addresses, key).await?;
            done(format!("added {name}"))
        }
        PeerCommand::Remove { name } => {
            let name = read_name(&name)?;
            peers.remove_peer(&name).await?;
            done(format!("removed {name}"))
        }
        PeerCommand::Trust { name, key } => {
            let (name, key) = (read_name(&name)?, read_key(&key)?);
            peers.trust(&name, key).await?;
            done(format!("{name} has the root key {key} from now on"))
        }
    }
}

fn list(server: &Server) -> AdminReply {
    let now_ms = server.clock.now_ms();
    let seen = server.peers.admin.seen();
    let refusals = server.peers.admin.refusals();
    AdminReply::Peers {
        peers: seen.into_iter().map(|seen| line(seen, now_ms)).collect(),
        refusals: refusals
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn line(seen: PeerSeen, now_ms: u64) -> PeerLine {
    let view = seen.view.as_ref();
    let state = view.map(|view| view.state);
    let until_dialled = match state {
        Some(PeerState::Waiting(until)) => Some(until),
        _ => None,
    };
    let seconds = view.and_then(|view| view.connected_for).or(until_dialled);
    let named_by = match (seen.configured, seen.added) {
        (true, _) => Some("configuration"),
        (_, true) => Some("admin"),
        _ => None,
    };
    PeerLine {
        name: seen.name.to_string(),
        state: state.map_or("unmet", PeerState::name).to_owned(),
        path: view.and_then(|view| view.path).map(|path| path.to_string()),
        round_trip_us: view.and_then(|view| view.round_trip).map(microseconds),
        seconds: seconds.map(|time| time.as_secs()),
        lag: seen.lag,
        last_error: view.and_then(|view| view.last_error.clone()),
        named_by: named_by.map(str::to_owned),
        root_key: seen.root_key.map(|key| key.to_base64()),
        refused: seen.refused.map(|refused| refused_line(refused, now_ms)),
    }
}

fn refused_line(refused: RefusedKey, now_ms: u64) -> RefusedLine {
    RefusedLine {
        root_key: refused.root_key.to_base64(),
        reason: refused.reason,
        count: refused.count,
        seconds_ago: now_ms.saturating_sub(refused.last_at) / 1000,
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn read_name(text: &str) -> Result<OwnedServerName, Refusal> {
    ServerName::parse(text).map_err(|_| Refusal::invalid(format!("`{text}` is not a server name")))
}

fn read_key(text: &str) -> Result<PublicKey, Refusal> {
    PublicKey::from_base64(text).map_err(|error| Refusal::invalid(format!("`{text}` is no key: {error}")))
}
