//! What a server sends a peer of its log, and what it stores of the peer's.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::Position;
use maru_protocol::destinations;
use maru_protocol::log_paging::{Page, Room, cursor_at, position_of};
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::log::{Cursor, Event, LogItem, Skipped, ToDevice};
use maru_protocol::wire::message::{Received, RoomExtremities};

use ruma::OwnedServerName;

use super::{Happening, World};
use crate::database::{self, Arrived, Record, Waiting};
use crate::replica::Writer;
use crate::server::Then;

/// Own events past which a peer that was away is told to fetch them.
const BACKLOG: usize = 12;

/// Bytes of one page.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

impl World {
    pub(super) fn load_received(&mut self, at: usize, peer: usize, connection: u64) {
        if self.servers[at].storing.contains(&peer) {
            // A store that an earlier session ordered has to end first.
            let pause = Duration::from_millis(5);
            return self.after(pause, Happening::LoadReceived { at, peer, connection });
        }
        let received = self.servers[at]
            .disk
            .received
            .get(&self.servers[peer].name)
            .cloned();
        let now = self.now;
        self.with(at, peer, connection, |session| session.received(received, now));
    }

    pub(super) fn store(
        &mut self,
        at: usize,
        peer: usize,
        connection: u64,
        received: Received,
        items: Vec<LogItem>,
    ) {
        let from = self.servers[peer].name.clone();
        let (mut change, mut events, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                LogItem::Event(event) => {
                    let row = self.servers[at].next_nid();
                    let json: Arc<str> = event.json.0;
                    events.extend(self.read(&json).map(|event| event.id.clone()));
                    change.push(Record::Arrived(
                        row,
                        Arrived {
                            from: from.clone(),
                            json,
                        },
                    ));
                }
                LogItem::Skipped(room) => skipped.push(RoomExtremities {
                    room_id: room.room_id,
                    extremities: room.extremities,
                }),
                LogItem::ToDevice(message) => change.push(Record::Delivered(message.message_id.to_string())),
                _ => {}
            }
        }
        change.push(Record::Received(from, received));
        let server = &mut self.servers[at];
        server.storing.insert(peer);
        server.enqueue(
            change,
            Some(Then::Stored {
                connection,
                peer,
                events,
            }),
        );
        self.settle(at);
        self.compare(at, peer, skipped);
    }

    pub(super) fn compare(&mut self, at: usize, peer: usize, rooms: Vec<RoomExtremities>) {
        let name = self.servers[peer].name.clone();
        for room in rooms {
            self.servers[at].work.told(name.clone(), room.extremities);
        }
        self.wake_worker(at);
    }

    /// Where the room ends, for a peer that is in it; with what it went, for one that has left without knowing it.
    pub(super) fn extremities_for(&mut self, at: usize, peer: usize) -> Vec<RoomExtremities> {
        let is_stray = self.servers[at].strays.remove(&peer);
        let (disk, name) = (&self.servers[at].disk, &self.servers[peer].name);
        let extremities = match disk.interested().contains(name) {
            true => disk.room.as_ref().map(database::Room::ends),
            false if is_stray => disk.ends_of(name),
            false => None,
        };
        let told = disk.room.as_ref().zip(extremities);
        told.map(|(room, extremities)| RoomExtremities {
            room_id: room.room_id.clone(),
            extremities,
        })
        .into_iter()
        .collect()
    }

    /// The next page of a server's log for a peer, as `server/src/peers/outgoing.rs` reads it.
    pub(super) fn read_log(
        &mut self,
        at: usize,
        peer: usize,
        connection: u64,
        after: Option<&Cursor>,
        max_items: usize,
    ) {
        let name = self.servers[peer].name.clone();
        let server = &mut self.servers[at];
        let (log_id, end) = (server.disk.log_id, Position(server.disk.position));
        let after = after.and_then(|cursor| position_of(cursor, log_id, end));
        let after = after.unwrap_or(Position::START);
        let mut skipped = Vec::new();
        let waits = server.disk.events_for(&name, after.0).count();
        if waits > BACKLOG
            && let Some(room) = server.disk.room.clone()
        {
            server.disk.skip(&name);
            server.memory.skip(&name);
            skipped.push(LogItem::Skipped(Skipped {
                extremities: room.ends(),
                room_id: room.room_id,
            }));
        }
        self.watch(at, &name, after.0);
        let waiting = self.servers[at].disk.waiting_for(&name, after.0);
        let waiting = waiting
            .into_iter()
            .filter_map(|(position, waiting)| Some((Position(position), self.item_of(at, peer, waiting)?)));
        let room = Room {
            items: max_items,
            bytes: PAGE_BYTES,
        };
        let Page { items, reached } = Page::fill(after, skipped, waiting, end, room);
        let (cursor, more, now) = (cursor_at(log_id, reached), reached < end, self.now);
        self.with(at, peer, connection, |session| {
            session.page(items, cursor, more, now)
        });
    }

    /// Sees to it that nobody is sent what is not for it, whatever the intervals say: a peer has a user in the room by a state
    /// around the event, or by the current one before or after it was stored. They differ where the event was made on an older
    /// head: by a server that let a user of this one in, or here, for an invitation that the user's server had to agree to. Who
    /// came in meanwhile is sent that as well: it lacks it like everybody else.
    fn watch(&mut self, at: usize, peer: &OwnedServerName, after: i64) {
        let disk = &self.servers[at].disk;
        let is_joined = |stored: &&database::Stored| {
            destinations::is_membership_of(&stored.event, peer)
                && destinations::membership(&stored.event).as_deref() == Some("join")
        };
        let leaks = disk.events_for(peer, after).filter(|(_, stored)| {
            let states = stored.state.iter().chain(&stored.current);
            let mut events = states.flat_map(|state| disk.whole(state));
            !destinations::is_membership_of(&stored.event, peer) && !events.any(|stored| is_joined(&stored))
        });
        let leaks = leaks.map(|(_, stored)| {
            format!(
                "s{at} sends {} to {peer}, which is not in the room",
                stored.event.id
            )
        });
        let leaks: Vec<_> = leaks.collect();
        self.seen.extend(leaks);
    }

    /// What waits for a peer, in the words of the protocol.
    fn item_of(&self, at: usize, peer: usize, waiting: Waiting<'_>) -> Option<LogItem> {
        Some(match waiting {
            Waiting::Event(stored) => LogItem::Event(Event {
                room_id: stored.event.room_id.clone(),
                json: stored.event.json.clone().into(),
            }),
            Waiting::Message(message) => LogItem::ToDevice(ToDevice {
                message_id: Text::new(&message.id)?,
                sender: self.servers[at].users.first()?.clone(),
                user_id: self.servers[peer].users.first()?.clone(),
                device_id: "DEVICE".into(),
                event_type: Text::new("m.room_key")?,
                content: "{}".into(),
            }),
        })
    }

    /// Drops what was kept for a peer that has it now.
    pub(super) fn delivered(&mut self, at: usize, peer: usize, cursor: &Cursor) {
        let name = self.servers[peer].name.clone();
        let server = &mut self.servers[at];
        let end = Position(server.disk.position);
        if let Some(up_to) = position_of(cursor, server.disk.log_id, end) {
            server.disk.drop_delivered(&name, up_to.0);
            server.memory.drop_delivered(&name, up_to.0);
        }
    }

    pub(super) fn wake_peers(&mut self, at: usize) {
        let now = self.now;
        let peers: Vec<_> = self.servers[at]
            .sessions
            .iter()
            .map(|(peer, live)| (*peer, live.connection))
            .collect();
        for (peer, connection) in peers {
            self.with(at, peer, connection, |session| session.wake(now));
        }
    }
}
