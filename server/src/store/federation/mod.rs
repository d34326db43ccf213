//! The tables of federation: what other servers sent, what they are to be sent, and who they are.
//!
//! | file | what |
//! |---|---|
//! | `inbox.rs` | events received of peers and not yet ingested; each peer's cursor |
//! | `destination_intervals.rs` | which servers are interested in which rooms from where to where, and the events for them |
//! | `outgoing.rs`, `peer_messages.rs` | what else a peer is to hear; messages to devices, kept until acknowledged |
//! | `own_events.rs` | the newest event of this server in each room |
//! | `remote_devices.rs` | device lists of users of other servers |
//! | `known_peers.rs`, `server_records.rs` | peers added by the admin, their root keys, signed server records |

pub mod destination_intervals;
pub mod inbox;
pub(super) mod known_peers;
pub mod outgoing;
pub(super) mod own_events;
pub mod peer_messages;
pub mod remote_devices;
pub mod server_records;

use std::sync::Arc;

use super::engine::Readers;
use super::log::Log;

/// The tables of federation.
#[derive(Debug)]
pub struct FederationTables {
    readers: Readers,
    log: Arc<Log>,
}

impl FederationTables {
    pub(super) fn new(readers: Readers, log: Arc<Log>) -> Self {
        Self { readers, log }
    }
}
