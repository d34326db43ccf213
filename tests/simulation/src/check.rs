//! What must hold at the end of a run.

use std::collections::{BTreeMap, BTreeSet};

use maru_protocol::destinations;
use maru_protocol::event::Event;
use maru_protocol::ingest::Outcome;
use ruma::OwnedEventId;

use crate::database::{Database, Room, Stored};
use crate::server::Server;
use crate::world::World;

/// Everything that does not hold.
pub(crate) fn findings(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    if world.is_endless() {
        found.push("the run does not come to an end".to_owned());
        return found;
    }
    found.extend(world.seen.iter().cloned());
    for server in world.servers.iter().filter(|server| server.up) {
        own_log(server, &mut found);
    }
    messages(world, &mut found);
    told(world, &mut found);
    invitations(world, &mut found);
    let core = core(world, &mut found);
    unrest(world, &core, &mut found);
    same_state(world, &core, &mut found);
    same_events(world, &core, &mut found);
    found
}

/// Notes what has reached nobody by itself, before anybody says something more that would lead there: where one server counts
/// another in, that one has all that the first one's replica ends with.
pub(crate) fn look_for_unheard(world: &mut World) {
    let mut unheard = Vec::new();
    let up = || world.servers.iter().filter(|server| server.up && server.is_in());
    for (one, other) in up().flat_map(|one| up().map(move |other| (one, other))) {
        let counted = one.index != other.index && one.disk.interested().contains(&other.name);
        let ends = one.disk.room.iter().filter(|_| counted).flat_map(Room::ends);
        let missing = ends.filter(|id| other.disk.event(id).is_none());
        unheard.extend(missing.map(|id| {
            format!(
                "s{} has not heard of {id}, at which the replica of s{} ends",
                other.index, one.index
            )
        }));
    }
    world.seen.extend(unheard);
}

/// Nothing waits anywhere, except events whose ancestors no server has any more: they were known to a server alone that is
/// gone for good, or back at a backup, and whoever was sent what came after them tries it again until it gives up.
fn unrest(world: &World, core: &[usize], found: &mut Vec<String>) {
    for server in world.servers.iter().filter(|server| server.up) {
        let at = server.index;
        if !server.is_durable() {
            found.push(format!("s{at} has something on its way to the disk"));
        }
        for (peer, live) in &server.sessions {
            if !live.session.is_caught_up() {
                found.push(format!("s{peer} has not caught up with s{at}"));
            }
        }
    }
    for at in core {
        let server = &world.servers[*at];
        let has = |server: &Server, id: &OwnedEventId| {
            let stored = server.disk.event(id);
            stored.is_some_and(|stored| stored.state.is_some() || stored.outcome == Outcome::Rejected)
        };
        for arrived in server.memory.inbox.values() {
            let Some(event) = world.read(&arrived.json) else {
                continue;
            };
            let lacking: Vec<_> = event.prev_events.iter().filter(|id| !has(server, id)).collect();
            let had = |id: &&OwnedEventId| core.iter().any(|other| has(&world.servers[*other], id));
            if lacking.iter().all(had) {
                found.push(format!("{} waits in the inbox of s{at}", event.id));
            }
        }
    }
}

/// No event stands twice in a log, no two at one place of the timeline, and what users were told is sent is there.
fn own_log(server: &Server, found: &mut Vec<String>) {
    let at = server.index;
    let mut places = BTreeMap::new();
    for stored in server
        .disk
        .log
        .values()
        .filter_map(|nid| server.disk.events.get(nid))
    {
        if let Some(other) = stored
            .place
            .and_then(|place| places.insert(place, &stored.event.id))
        {
            let id = &stored.event.id;
            found.push(format!("s{at} has {id} at the place of {other}"));
        }
    }
    for id in &server.disk.doubled {
        found.push(format!("s{at} has {id} at two positions of its log"));
    }
    let is_placed = |id: &OwnedEventId| server.disk.event(id).is_some_and(|stored| stored.state.is_some());
    for id in server.sent.iter().filter(|id| !is_placed(id)) {
        found.push(format!(
            "s{at} told a user that {id} is sent, and does not have it"
        ));
    }
}

/// Messages that users were told are sent have come, where both servers are still there.
fn messages(world: &World, found: &mut Vec<String>) {
    for server in world.servers.iter().filter(|server| server.up) {
        for (id, to) in &server.sent_messages {
            let receiver = world
                .servers
                .iter()
                .find(|server| server.name == *to && server.up);
            if receiver.is_some_and(|receiver| !receiver.disk.delivered.contains(id)) {
                found.push(format!(
                    "the message {id} of s{} never came to {to}",
                    server.index
                ));
            }
        }
    }
}

/// Who is invited knows it, and hears when that is over, where the user's server was not in the room to take it from there;
/// unless that server ever went back to a backup, or the one that says so.
fn invitations(world: &World, found: &mut Vec<String>) {
    let servers = || world.servers.iter();
    let present = || servers().filter(|server| server.up && !server.restored);
    for (one, other) in present().flat_map(|one| present().map(move |other| (one, other))) {
        let said = one.disk.log.values().filter_map(|nid| one.disk.events.get(nid));
        let said = said.filter(|stored| stored.own && stored.outcome == Outcome::Accepted);
        let of_other = said.filter(|stored| destinations::is_membership_of(&stored.event, &other.name));
        for stored in of_other.filter(|stored| other.disk.event(&stored.event.id).is_none()) {
            let event = &stored.event;
            let user = event.state_key.as_deref().unwrap_or_default();
            let known = other.disk.invitations.iter().find(|(id, _)| *id == user);
            let known = known.map(|(_, invitation)| invitation);
            match destinations::membership(event).as_deref() {
                // What goes by the log, since the server is in the room or counted in, is for nobody where it has left.
                Some("invite")
                    if known.is_none()
                        && !is_counted_in(one, stored, other)
                        && !other.dropped.contains(&event.id) =>
                {
                    found.push(format!("{user} never heard of the invitation {}", event.id));
                }
                Some("leave" | "ban") => {
                    let over = known.filter(|invitation| {
                        invitation.is_open
                            && invitation.shown.contains(&one.name)
                            && event.auth_events.contains(&invitation.event.id)
                    });
                    found.extend(over.map(|invitation| {
                        format!(
                            "{user} never heard that {} is over by {}",
                            invitation.event.id, event.id
                        )
                    }));
                }
                _ => {}
            }
        }
    }
}

/// Whoever takes itself to be in the room has what was made elsewhere while it was, up to and with the event by which it went
/// there: that one above all is for it. What came while nobody was in the room there is for nobody.
fn told(world: &World, found: &mut Vec<String>) {
    let up = || world.servers.iter().filter(|server| server.up);
    for (one, other) in up().flat_map(|one| up().map(move |other| (one, other))) {
        if one.index == other.index || !other.is_in() {
            continue;
        }
        let disk = &one.disk;
        let own = disk.log.values().filter_map(|nid| disk.events.get(nid));
        let own = own.filter(|stored| stored.own && stored.outcome == Outcome::Accepted);
        let missing = own
            .filter(|stored| other.disk.event(&stored.event.id).is_none())
            .filter(|stored| !other.dropped.contains(&stored.event.id))
            .filter(|stored| is_counted_in(one, stored, other));
        found.extend(missing.map(|stored| {
            format!(
                "s{} made {} while s{} was in the room, and that one does not have it",
                one.index, stored.event.id, other.index
            )
        }));
    }
}

/// Whether a server counts another in around an event: by the state before it or the one after it.
fn is_counted_in(one: &Server, stored: &Stored, other: &Server) -> bool {
    let is_joined = |event: &Event| {
        let is_of_other = destinations::is_membership_of(event, &other.name);
        is_of_other && destinations::membership(event).as_deref() == Some("join")
    };
    let disk = &one.disk;
    let after = stored.state.iter().flat_map(|state| disk.whole(state));
    let before = stored.replaces.iter().filter_map(|nid| disk.events.get(nid));
    after.chain(before).any(|stored| is_joined(&stored.event))
}

/// The servers that are entitled to the room: those that others who are entitled count in.
///
/// A server whose user was let in by somebody who did not know yet that the room had been closed may never hear that it is
/// out; it is in the room by its own account alone. What was made before that while it was in the room it has all the same
/// ([`told`]).
fn core(world: &World, found: &mut Vec<String>) -> Vec<usize> {
    let believers: Vec<usize> = world
        .servers
        .iter()
        .filter(|server| server.up && server.is_in())
        .map(|server| server.index)
        .collect();
    let counts = |one: usize, other: usize| {
        let name = &world.servers[other].name;
        let room = world.servers[one].disk.room.as_ref();
        room.is_some_and(|room| room.census.contains_key(name))
    };
    let votes = |at: &usize| believers.iter().filter(|one| counts(**one, *at)).count();
    let Some(first) = believers
        .iter()
        .copied()
        .max_by_key(|at| (votes(at), std::cmp::Reverse(*at)))
    else {
        return Vec::new();
    };
    let (mut core, mut open) = (BTreeSet::from([first]), vec![first]);
    while let Some(at) = open.pop() {
        for server in world.servers.iter().filter(|server| server.up) {
            let other = server.index;
            if !counts(at, other) {
                continue;
            }
            if !server.is_in() && (may_not_hear_it_go(world, at, other) || are_split(world, at, other)) {
                continue;
            }
            if !server.is_in() {
                let slots = state(world, at).into_iter();
                let users = slots.filter(|((_, key), _)| key.ends_with(server.name.as_str()));
                let held: Vec<_> = users.collect();
                let own: Vec<_> = state(world, other)
                    .into_iter()
                    .filter(|((_, key), _)| key.ends_with(server.name.as_str()))
                    .collect();
                found.push(format!(
                    "s{other} is out of the room by its own account ({own:?}), and in it by that of s{at} ({held:?})"
                ));
            } else if core.insert(other) {
                open.push(other);
            }
        }
    }
    core.into_iter().collect()
}

/// Whether a server may stay ignorant for ever of that another one has left: it is a stranger there, which came in by others
/// who are gone; or each has all that it may have of the other's, and what the one was never told, since it was not in the
/// room any more by the other's account, had closed the room to it.
fn may_not_hear_it_go(world: &World, at: usize, gone: usize) -> bool {
    let (one, other) = (&world.servers[at], &world.servers[gone].disk);
    if other.interested().contains(&one.name) {
        return false;
    }
    let Some(ends) = other.ends_of(&one.name) else {
        return true;
    };
    let own_ends = one.disk.room.iter().flat_map(Room::ends);
    ends.iter().all(|id| one.disk.event(id).is_some())
        && own_ends.into_iter().all(|id| other.event(&id).is_some())
}

/// Whether a server and one that has left by its own account hold different states, though each has all that the other's
/// replica ends with: the one failed softly an event of the other's and does not build on it, the other does. Somebody has to
/// build on both to join them, and who is out of the room may say nothing in it.
fn are_split(world: &World, at: usize, gone: usize) -> bool {
    let (one, other) = (&world.servers[at].disk, &world.servers[gone].disk);
    let ends = |disk: &Database| disk.room.iter().flat_map(Room::ends).collect::<Vec<_>>();
    let built_upon = graph(world, at);
    let failed_softly = |id: &OwnedEventId| {
        let stored = one.event(id).filter(|_| !built_upon.contains(id));
        stored.is_some_and(|stored| stored.outcome == Outcome::SoftFailed)
    };
    ends(one).iter().all(|id| other.event(id).is_some())
        && ends(other).iter().all(|id| one.event(id).is_some())
        && ends(other).iter().any(failed_softly)
}

fn room(world: &World, at: usize) -> Option<(&Database, &Room)> {
    let disk = &world.servers[at].disk;
    disk.room.as_ref().map(|room| (disk, room))
}

fn state(world: &World, at: usize) -> BTreeMap<(String, String), String> {
    let Some((disk, room)) = room(world, at) else {
        return BTreeMap::new();
    };
    let slot = |event: &Event| {
        let key = event.state_key.as_deref().unwrap_or_default().to_owned();
        (event.event_type.to_string(), key)
    };
    let events = disk.whole(&room.head.state).into_iter();
    events
        .map(|stored| (slot(&stored.event), stored.event.id.to_string()))
        .collect()
}

/// All who are entitled have the same current state.
fn same_state(world: &World, core: &[usize], found: &mut Vec<String>) {
    let Some((first, others)) = core.split_first() else {
        return;
    };
    let expected = state(world, *first);
    for at in others {
        let present = state(world, *at);
        let slots: BTreeSet<_> = expected.keys().chain(present.keys()).collect();
        for slot in slots {
            let (one, other) = (expected.get(slot), present.get(slot));
            if one != other {
                found.push(format!("{slot:?} is {one:?} on s{first} and {other:?} on s{at}"));
            }
        }
    }
}

/// All who are entitled have the same events that are not rejected, back to the first.
fn same_events(world: &World, core: &[usize], found: &mut Vec<String>) {
    // An event that all who have it have failed softly concerns nobody, unless its own server goes on from it: that one
    // tells it to all.
    let goes_on: Vec<_> = core
        .iter()
        .map(|at| (&world.servers[*at].name, graph(world, *at)))
        .collect();
    let owner_has = |event: &Event| {
        let mut owners = goes_on
            .iter()
            .filter(|(name, _)| **name == event.sender.server_name());
        owners.any(|(_, graph)| graph.contains(&event.id))
    };
    let mut expected: BTreeMap<&OwnedEventId, usize> = BTreeMap::new();
    for at in core {
        for stored in world.servers[*at]
            .disk
            .log
            .values()
            .filter_map(|nid| world.servers[*at].disk.events.get(nid))
        {
            let counts = stored.outcome == Outcome::Accepted
                || stored.outcome == Outcome::SoftFailed && owner_has(&stored.event);
            if counts {
                expected.entry(&stored.event.id).or_insert(*at);
            }
        }
    }
    for at in core {
        let disk = &world.servers[*at].disk;
        let waiting = disk
            .inbox
            .values()
            .filter_map(|arrived| world.read(&arrived.json));
        let waiting: BTreeSet<_> = waiting.map(|event| event.id.clone()).collect();
        let has = |id: &OwnedEventId| {
            disk.event(id)
                .filter(|stored| stored.state.is_some())
                .map(|stored| stored.outcome)
        };
        for (id, of) in &expected {
            match has(id) {
                Some(Outcome::Accepted | Outcome::SoftFailed) => {}
                Some(Outcome::Rejected) => found.push(format!("{id} is rejected by s{at} and not by s{of}")),
                None => found.push(format!("{id} is not on s{at}, and on s{of}")),
            }
        }
        for id in &world.servers[*at].acknowledged {
            if disk.event(id).is_none() && !waiting.contains(id) {
                found.push(format!(
                    "s{at} acknowledged {id} to its sender, and does not have it"
                ));
            }
        }
    }
}

/// The events that a server's next one is built on, back to the first.
fn graph(world: &World, at: usize) -> BTreeSet<OwnedEventId> {
    let disk = &world.servers[at].disk;
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = disk.room.iter().flat_map(Room::ends).collect();
    while let Some(id) = open.pop() {
        if let Some(stored) = disk.event(&id).filter(|_| !found.contains(&id)) {
            open.extend(stored.event.prev_events.iter().cloned());
            found.insert(id);
        }
    }
    found
}
