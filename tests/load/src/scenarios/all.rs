//! Everything, one after the other, in the sizes that the targets are meant for.

use clap::Args;
use serde::Serialize;

use super::{
    Scenario, big, catch_up, create_room, group, growth, idle, idle_peers, join, logins, one_sender, page,
    relay, relay_latency, search, send, sync,
};
use crate::listen::Transport;

/// Which sizes.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Small sizes that show that everything works; figures are not held against targets
    #[arg(long)]
    pub(crate) quick: bool,
    /// Leaves out what only Maru has: the WebSocket and the long messages
    #[arg(long)]
    pub(crate) matrix_only: bool,
    /// Only the scenarios with two homeservers, which are left out otherwise
    #[arg(long)]
    pub(crate) two: bool,
}

impl Size {
    /// The scenarios in the order they run.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut scenarios = match (self.two, self.quick) {
            (true, quick) => return two(quick),
            (false, true) => quick(),
            (false, false) => full(),
        };
        if self.matrix_only {
            scenarios.retain(|scenario| !only_maru(scenario));
        }
        scenarios
    }
}

fn only_maru(scenario: &Scenario) -> bool {
    match scenario {
        Scenario::Group(size) => size.transport == Transport::Websocket,
        Scenario::Idle(size) => size.transport == Transport::Websocket,
        Scenario::Big(_) => true,
        _ => false,
    }
}

fn two(quick: bool) -> Vec<Scenario> {
    let size = |full: usize, small: usize| if quick { small } else { full };
    vec![
        Scenario::RelayLatency(relay_latency::Size {
            rate: 50.0,
            seconds: if quick { 1.0 } else { 20.0 },
        }),
        Scenario::Relay(relay::Size {
            senders: size(64, 4),
            messages: size(30_000, 200),
        }),
        Scenario::CatchUp(catch_up::Size {
            rooms: size(50, 3),
            messages: size(50_000, 300),
            senders: size(64, 4),
        }),
        Scenario::Join(join::Size {
            members: size(10_000, 20),
        }),
        Scenario::IdlePeers(idle_peers::Size {
            peers: size(200, 5),
            seconds: if quick { 1.0 } else { 60.0 },
        }),
    ]
}

fn full() -> Vec<Scenario> {
    let send = send::Size {
        senders: 64,
        members: 100,
        rooms: 1,
        messages: 50_000,
    };
    let many = send::Size {
        rooms: 64,
        members: 10,
        ..send.clone()
    };
    let group = group::Size {
        transport: Transport::LongPoll,
        members: 100,
        senders: 4,
        rate: None,
        seconds: 20.0,
    };
    let idle = idle::Size {
        transport: Transport::LongPoll,
        base: 500,
        connections: 10_000,
        accounts: 105,
        devices_per_account: 100,
    };
    vec![
        Scenario::Send(send),
        Scenario::Send(many),
        Scenario::OneSender(one_sender::Size {
            messages: 3_000,
            members: 100,
        }),
        Scenario::Group(group::Size {
            transport: Transport::Websocket,
            ..group.clone()
        }),
        Scenario::Group(group),
        Scenario::Growth(growth::Size {
            messages: 1_000,
            threads: 100,
            members: 10,
            rooms: 10,
            devices: 4,
            peers: 5,
            times: 20,
            repeats: 200,
        }),
        Scenario::Logins(logins::Size {
            logins: 200,
            concurrency: 8,
            accounts: 8,
        }),
        Scenario::Sync(sync::Size {
            rooms: 500,
            messages: 50,
            few_rooms: 10,
            firsts: 5,
            repeats: 1000,
            timeline_limit: None,
        }),
        Scenario::CreateRoom(create_room::Size {
            rooms: 3_000,
            concurrency: 32,
        }),
        Scenario::Page(page::Size {
            messages: 100_000,
            senders: 64,
            limit: 1000,
        }),
        Scenario::Search(search::Size {
            messages: 200_000,
            rooms: 20,
            senders: 64,
            searches: 50,
        }),
        Scenario::Big(big::Size {
            characters: 100_000,
            messages: 20,
        }),
        Scenario::Idle(idle::Size {
            transport: Transport::Websocket,
            ..idle.clone()
        }),
        Scenario::Idle(idle),
    ]
}

fn quick() -> Vec<Scenario> {
    let send = send::Size {
        senders: 4,
        members: 4,
        rooms: 1,
        messages: 100,
    };
    let many = send::Size {
        rooms: 4,
        members: 2,
        ..send.clone()
    };
    let group = group::Size {
        transport: Transport::LongPoll,
        members: 5,
        senders: 2,
        rate: Some(20.0),
        seconds: 1.0,
    };
    let idle = idle::Size {
        transport: Transport::LongPoll,
        base: 4,
        connections: 16,
        accounts: 2,
        devices_per_account: 10,
    };
    vec![
        Scenario::Send(send),
        Scenario::Send(many),
        Scenario::OneSender(one_sender::Size {
            messages: 20,
            members: 2,
        }),
        Scenario::Group(group::Size {
            transport: Transport::Websocket,
            ..group.clone()
        }),
        Scenario::Group(group),
        Scenario::Growth(growth::Size {
            messages: 10,
            threads: 5,
            members: 2,
            rooms: 2,
            devices: 2,
            peers: 1,
            times: 2,
            repeats: 5,
        }),
        Scenario::Logins(logins::Size {
            logins: 4,
            concurrency: 2,
            accounts: 2,
        }),
        Scenario::Sync(sync::Size {
            rooms: 5,
            messages: 12,
            few_rooms: 1,
            firsts: 2,
            repeats: 10,
            timeline_limit: None,
        }),
        Scenario::CreateRoom(create_room::Size {
            rooms: 12,
            concurrency: 4,
        }),
        Scenario::Page(page::Size {
            messages: 250,
            senders: 4,
            limit: 40,
        }),
        Scenario::Search(search::Size {
            messages: 200,
            rooms: 3,
            senders: 4,
            searches: 2,
        }),
        Scenario::Big(big::Size {
            characters: 100_000,
            messages: 1,
        }),
        Scenario::Idle(idle::Size {
            transport: Transport::Websocket,
            ..idle.clone()
        }),
        Scenario::Idle(idle),
    ]
}
