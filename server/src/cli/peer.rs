//! `maru peer`: other homeservers, as a running server sees them.

use clap::Subcommand;

use super::admin::{execute, print};
use super::{Failure, Flags};
use crate::admin::{AdminCommand, PeerCommand, PeerLine};

/// What to do with other homeservers.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show every peer: how it is connected, how far it is behind, what went wrong last, whom we refused under its name
    List,
    /// Connect with a peer and ask it something
    Ping {
        /// Its name
        name: String,
    },
    /// Add a peer for good, or change its addresses
    Add {
        /// Its name
        name: String,
        /// Where it is: addresses or host names with ports, the best first
        addresses: Vec<String>,
        /// Its root key, for a domain that does not publish it
        #[arg(long)]
        key: Option<String>,
    },
    /// Forget a peer that was added
    Remove {
        /// Its name
        name: String,
    },
    /// Accept another root key for a domain
    Trust {
        /// Its name
        name: String,
        /// The root key, as its admin tells you
        key: String,
    },
}

pub(super) async fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let command = match action {
        Action::List => PeerCommand::List,
        Action::Ping { name } => PeerCommand::Ping { name },
        Action::Add { name, addresses, key } => PeerCommand::Add { name, addresses, key },
        Action::Remove { name } => PeerCommand::Remove { name },
        Action::Trust { name, key } => PeerCommand::Trust { name, key },
    };
    let config = flags.load()?.config;
    print(execute(&config, AdminCommand::Peer(command)).await?)
}

/// A peer as some lines of text, the first with its name.
pub(super) fn lines(peer: &PeerLine) -> Vec<String> {
    let seconds = peer.seconds.unwrap_or_default();
    let mut state = vec![match peer.state.as_str() {
        "connected" => format!("connected for {seconds} s"),
        "waiting" => format!("waiting, dialled again within {seconds} s"),
        state => state.to_owned(),
    }];
    state.extend(peer.path.as_ref().map(|path| format!("at {path}")));
    state.extend(
        peer.round_trip_us
            .map(|time| format!("round trip {:.1} ms", time as f64 / 1000.0)),
    );
    state.extend(peer.lag.map(|lag| format!("lag {lag}")));
    state.extend(peer.named_by.as_ref().map(|who| format!("named by the {who}")));
    let mut lines = vec![peer.name.clone(), format!("  {}", state.join(", "))];
    lines.extend(
        peer.last_error
            .as_ref()
            .map(|error| format!("  last error: {error}")),
    );
    if let Some(refused) = &peer.refused {
        let (reason, key) = (&refused.reason, &refused.root_key);
        let (count, ago) = (refused.count, refused.seconds_ago);
        lines.push(format!(
            "  REFUSED {count} times, last {ago} s ago: {reason}: root key {key}"
        ));
    }
    lines
}
