//! What a server sends a peer of its log, and what it stores of the peer's.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::LogId;
use maru_protocol::wire::log::{Cursor, Event, LogItem, Skipped};
use maru_protocol::wire::message::{Received, RoomExtremities};

use super::{Happening, World};
use crate::database::{Arrived, Record, Room};
use crate::replica::Writer;
use crate::server::Then;

/// Own events past which a peer that was away is told to fetch them.
const BACKLOG: usize = 12;

/// A cursor of a log, as `server/src/peers/outgoing.rs` makes it.
fn cursor_at(log_id: LogId, position: i64) -> Cursor {
    let bytes = [&log_id.0[..], &position.to_be_bytes()].concat();
    Cursor::new(&bytes).unwrap_or_default()
}

fn position_of(cursor: &Cursor, log_id: LogId, end: i64) -> Option<i64> {
    let (log, position) = cursor.split_at_checked(16)?;
    let position = i64::from_be_bytes(position.try_into().ok()?);
    (log == log_id.0 && (0..=end).contains(&position)).then_some(position)
}

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

    pub(super) fn extremities_for(&self, at: usize, peer: usize) -> Vec<RoomExtremities> {
        let server = &self.servers[at];
        let shared = server.disk.interested().contains(&self.servers[peer].name);
        let room = server.disk.room.as_ref().filter(|_| shared);
        let tell = |room: &Room| RoomExtremities {
            room_id: room.room_id.clone(),
            extremities: room.head.extremities.iter().map(|tip| tip.id.clone()).collect(),
        };
        room.map(tell).into_iter().collect()
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
        let (log_id, end) = (server.disk.log_id, server.disk.position);
        let after = after
            .and_then(|cursor| position_of(cursor, log_id, end))
            .unwrap_or(0);
        let mut items = Vec::new();
        let waits = server.disk.events_for(&name, after).count();
        if waits > BACKLOG
            && let Some(room) = server.disk.room.clone()
        {
            server.disk.skip(&name);
            server.memory.skip(&name);
            items.push(LogItem::Skipped(Skipped {
                room_id: room.room_id,
                extremities: room.head.extremities.iter().map(|tip| tip.id.clone()).collect(),
            }));
        }
        let mut reached = end;
        for (position, stored) in server.disk.events_for(&name, after) {
            if items.len() >= max_items {
                break;
            }
            items.push(LogItem::Event(Event {
                room_id: stored.event.room_id.clone(),
                json: stored.event.json.clone().into(),
            }));
            reached = position;
        }
        if items.len() < max_items {
            reached = end;
        }
        let (cursor, more, now) = (cursor_at(log_id, reached), reached < end, self.now);
        self.with(at, peer, connection, |session| {
            session.page(items, cursor, more, now)
        });
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
