//! Following: while another node leads, a link to it is kept, over which this one has its requests sent.

use std::time::Duration;

use maru_federation::link::frames::FrameWriter;
use maru_federation::link::{Link, LinkError, Transport};
use maru_federation::quic::Quic;
use maru_protocol::wire::nodes::Note;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

use super::leader_link::LeaderLink;
use crate::config::PeerAddress;
use crate::peers::identity::address_book::resolve;
use crate::peers::rpc_client::{RpcClient, Way};

/// The pause before a node that was not reached is dialled again.
const DIAL_AGAIN: Duration = Duration::from_millis(500);

/// Notes that may wait to be written.
const MOST_NOTES: usize = 1_024;

/// Requests go by the link for as long as this lives.
struct Following<'a>(&'a RpcClient);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.go_by(Way::Unknown);
    }
}

/// Keeps requests going by the node that leads, whichever it is, until this is dropped. `leader` says where it takes links of
/// other nodes, as far as that is known.
pub(in crate::peers) async fn follow(
    rpc: &RpcClient,
    quic: &Quic,
    mut leader: watch::Receiver<Option<String>>,
) {
    loop {
        let address = leader.borrow_and_update().clone();
        let Some(address) = address else {
            if leader.changed().await.is_err() {
                return;
            }
            continue;
        };
        let dialled = tokio::select! {
            dialled = dial(quic, &address) => dialled,
            _ = leader.changed() => continue,
        };
        match dialled {
            Ok(link) => {
                tracing::info!(address, "has the node that leads speak with other homeservers");
                let (notes, to_write) = mpsc::channel(MOST_NOTES);
                rpc.go_by(Way::Leader(LeaderLink::new(Arc::clone(&link), notes)));
                let _following = Following(rpc);
                tokio::select! {
                    why = link.closed() => tracing::info!(address, %why, "the link to the node that leads is gone"),
                    _ = leader.changed() => {}
                    Err(why) = write(&*link, to_write) => tracing::info!(address, %why, "notes cannot be written"),
                }
            }
            Err(why) => {
                tracing::warn!(address, %why, "the node that leads is not reached");
                tokio::select! {
                    () = tokio::time::sleep(DIAL_AGAIN) => {}
                    _ = leader.changed() => {}
                }
            }
        }
    }
}

async fn dial(quic: &Quic, address: &str) -> Result<Arc<dyn Link>, LinkError> {
    let wrong = |why: &dyn std::fmt::Display| LinkError::Setup(why.to_string());
    let address: PeerAddress = address.parse().map_err(|error| wrong(&error))?;
    let mut last = wrong(&"its name was not found");
    for address in resolve(&address).await {
        match quic.dial(address, None).await {
            Ok(link) => {
                link.admit();
                return Ok(link);
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Writes notes as they come; ends only when they cannot be written.
async fn write(link: &dyn Link, mut notes: mpsc::Receiver<Note>) -> Result<(), String> {
    let stream = link.open_log().await.map_err(|error| error.to_string())?;
    let mut writer = FrameWriter::new(stream);
    loop {
        match notes.recv().await {
            Some(note) => writer.write(&note).await.map_err(|error| error.to_string())?,
            None => std::future::pending().await,
        }
    }
}
