//! One file for each scenario: its sizes, what it does, what it checks and what it has to reach.

use std::time::Duration;

use clap::Subcommand;

use crate::context::Context;
use crate::error::LoadError;
use crate::report::Outcome;

mod across;
pub(crate) mod all;
mod big;
mod catch_up;
mod create_room;
mod group;
mod growth;
mod idle;
mod idle_peers;
mod join;
mod logins;
mod one_sender;
mod page;
mod reconnect;
mod relay;
mod relay_latency;
mod search;
mod send;
mod sync;

/// What to do to the server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Scenario {
    /// Concurrent senders in one room or many, nobody listening.
    Send(send::Size),
    /// One sender, one message after the other.
    OneSender(one_sender::Size),
    /// A room in which every member listens.
    Group(group::Size),
    /// The same calls with little and with much of one thing.
    Growth(growth::Size),
    /// Memory for each idle connection.
    Idle(idle::Size),
    /// Everybody who listens at a node that dies goes on at the others.
    Reconnect(reconnect::Size),
    /// Concurrent logins by password.
    Logins(logins::Size),
    /// First and incremental sync of an account with many rooms.
    Sync(sync::Size),
    /// Concurrent creation of rooms.
    CreateRoom(create_room::Size),
    /// Paging back through a long history.
    Page(page::Size),
    /// Searching many messages.
    Search(search::Size),
    /// Messages of the greatest length, and one character more.
    Big(big::Size),
    /// From a request to one homeserver to a listener at another.
    RelayLatency(relay_latency::Size),
    /// One room of two homeservers, as fast as it goes.
    Relay(relay::Size),
    /// A homeserver that was away gets what it missed.
    CatchUp(catch_up::Size),
    /// Joining a large room of another homeserver.
    Join(join::Size),
    /// Memory and processor time for each idle peer.
    IdlePeers(idle_peers::Size),
    /// Everything, one after the other.
    All(all::Size),
}

impl Scenario {
    /// The subcommand.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Send(_) => "send",
            Self::OneSender(_) => "one-sender",
            Self::Group(_) => "group",
            Self::Growth(_) => "growth",
            Self::Idle(_) => "idle",
            Self::Reconnect(_) => "reconnect",
            Self::Logins(_) => "logins",
            Self::Sync(_) => "sync",
            Self::CreateRoom(_) => "create-room",
            Self::Page(_) => "page",
            Self::Search(_) => "search",
            Self::Big(_) => "big",
            Self::RelayLatency(_) => "relay-latency",
            Self::Relay(_) => "relay",
            Self::CatchUp(_) => "catch-up",
            Self::Join(_) => "join",
            Self::IdlePeers(_) => "idle-peers",
            Self::All(_) => "all",
        }
    }

    /// Runs the scenario for at most `deadline`; an outcome with an error in it if it does not hold.
    pub(crate) async fn outcome(&self, context: &Context, deadline: Duration) -> Outcome {
        let mut outcome = Outcome::new(self.name(), &self.size());
        let ended = tokio::time::timeout(deadline, Box::pin(self.run(context, &mut outcome))).await;
        if let Err(error) = ended.unwrap_or_else(|_| Err(LoadError::Timeout(self.name().to_owned()))) {
            outcome.met = false;
            outcome.error = Some(error.to_string());
        }
        outcome
    }

    fn size(&self) -> serde_json::Value {
        match self {
            Self::Send(size) => serde_json::to_value(size),
            Self::OneSender(size) => serde_json::to_value(size),
            Self::Group(size) => serde_json::to_value(size),
            Self::Growth(size) => serde_json::to_value(size),
            Self::Idle(size) => serde_json::to_value(size),
            Self::Reconnect(size) => serde_json::to_value(size),
            Self::Logins(size) => serde_json::to_value(size),
            Self::Sync(size) => serde_json::to_value(size),
            Self::CreateRoom(size) => serde_json::to_value(size),
            Self::Page(size) => serde_json::to_value(size),
            Self::Search(size) => serde_json::to_value(size),
            Self::Big(size) => serde_json::to_value(size),
            Self::RelayLatency(size) => serde_json::to_value(size),
            Self::Relay(size) => serde_json::to_value(size),
            Self::CatchUp(size) => serde_json::to_value(size),
            Self::Join(size) => serde_json::to_value(size),
            Self::IdlePeers(size) => serde_json::to_value(size),
            Self::All(size) => serde_json::to_value(size),
        }
        .unwrap_or_default()
    }

    async fn run(&self, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
        match self {
            Self::Send(size) => send::run(size, context, outcome).await,
            Self::OneSender(size) => one_sender::run(size, context, outcome).await,
            Self::Group(size) => group::run(size, context, outcome).await,
            Self::Growth(size) => growth::run(size, context, outcome).await,
            Self::Idle(size) => idle::run(size, context, outcome).await,
            Self::Reconnect(size) => reconnect::run(size, context, outcome).await,
            Self::Logins(size) => logins::run(size, context, outcome).await,
            Self::Sync(size) => sync::run(size, context, outcome).await,
            Self::CreateRoom(size) => create_room::run(size, context, outcome).await,
            Self::Page(size) => page::run(size, context, outcome).await,
            Self::Search(size) => search::run(size, context, outcome).await,
            Self::Big(size) => big::run(size, context, outcome).await,
            Self::RelayLatency(size) => relay_latency::run(size, context, outcome).await,
            Self::Relay(size) => relay::run(size, context, outcome).await,
            Self::CatchUp(size) => catch_up::run(size, context, outcome).await,
            Self::Join(size) => join::run(size, context, outcome).await,
            Self::IdlePeers(size) => idle_peers::run(size, context, outcome).await,
            Self::All(_) => Err(LoadError::Usage("all is not one scenario".into())),
        }
    }
}
