//! `maru node`: the processes that serve this homeserver.

use clap::Subcommand;

use super::admin::print;
use super::{Failure, Flags};
use crate::admin::{AdminCommand, NodeCommand, NodeLine, send};
use crate::data_folder::DataFolder;

/// What to do with nodes. The node of the data folder must run.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show every node: where it is, how much it has to do, whether it lives, what it alone does
    List,
    /// Have the node of this data folder send its clients to others, and end
    Drain,
}

pub(super) async fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let command = match action {
        Action::List => NodeCommand::List,
        Action::Drain => NodeCommand::Drain,
    };
    let config = flags.load()?.config;
    let socket = DataFolder::admin_socket_in(&config.data);
    let replied = send(&socket, &AdminCommand::Node(command)).await;
    print(replied.map_err(|error| Failure::Other(error.to_string()))?)
}

/// A node as some lines of text, the first with its name.
pub(super) fn lines(node: &NodeLine) -> Vec<String> {
    let mut first = vec![node.state.to_string(), format!("load {}", node.load)];
    first.extend(node.zone.as_ref().map(|zone| format!("zone {zone}")));
    first.extend(node.address.clone());
    first.push(format!("version {}", node.version));
    let mut lines = vec![node.name.clone(), format!("  {}", first.join(", "))];
    if !node.leases.is_empty() {
        lines.push(format!("  holds {}", node.leases.join(", ")));
    }
    lines
}
