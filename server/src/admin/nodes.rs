//! What the admin asks of nodes, and is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::nodes::{StoredLease, StoredNode};

/// What to do with nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum NodeCommand {
    /// List all.
    List,
    /// Have the one that is asked send its clients to others, and end.
    Drain,
}

/// One node in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// Whether it serves.
    pub state: NodeState,
    /// Where clients reach it.
    pub address: Option<String>,
    /// Near what it stands.
    pub zone: Option<String>,
    /// How much it has to do, in connections of clients.
    pub load: i64,
    /// The program's version.
    pub version: String,
    /// What it alone does.
    pub leases: Vec<String>,
}

/// Whether a node serves, as the one that is asked sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It does.
    Alive,
    /// It is about to stop.
    Draining,
    /// It has said nothing for a while.
    Dead,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Dead => "DEAD",
        })
    }
}

/// Does what a command asks for.
pub(super) async fn execute(server: &Server, command: NodeCommand) -> Result<AdminReply, Refusal> {
    match command {
        NodeCommand::List => {
            let leases = server.store.nodes.leases().await?;
            let nodes = server.nodes.all().into_iter();
            let lines = nodes.map(|(node, is_dead)| line(node, is_dead, &leases));
            Ok(AdminReply::Nodes {
                nodes: lines.collect(),
            })
        }
        NodeCommand::Drain => {
            server.nodes.ask_to_leave();
            Ok(AdminReply::Done {
                message: format!("{} sends its clients away and ends", server.nodes.name()),
            })
        }
    }
}

fn line(node: StoredNode, is_dead: bool, leases: &[StoredLease]) -> NodeLine {
    let held = leases.iter().filter(|lease| lease.run == Some(node.run));
    NodeLine {
        state: match (is_dead, node.draining) {
            (true, _) => NodeState::Dead,
            (false, true) => NodeState::Draining,
            (false, false) => NodeState::Alive,
        },
        leases: held.map(|lease| lease.name.to_string()).collect(),
        name: node.name,
        address: node.address,
        zone: node.zone,
        load: node.load,
        version: node.version,
    }
}
