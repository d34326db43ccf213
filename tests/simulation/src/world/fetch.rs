//! Filling gaps: the effects of [`maru_protocol::gap`], run on the model, as `server/src/peers/backfill/missing_events.rs` runs them.

use std::collections::VecDeque;
use std::sync::Arc;

use maru_protocol::event::Event;
use maru_protocol::gap::{self, Effect, Gap};
use ruma::OwnedServerName;

use super::World;
use super::requests::{Asked, Reply, Request};
use crate::database::{Record, Stored};
use crate::replica::{self, Incoming, Taken, Writer};
use crate::server::{Doom, Filling, Joining, Target, Worker};

impl World {
    pub(super) fn fill_next(&mut self, at: usize, mut queue: VecDeque<(i64, usize, Arc<Event>)>) {
        if let Some((row, peer, event)) = queue.pop_front() {
            let from = self.servers[peer].name.clone();
            let gap = Gap::before(Arc::clone(&event), self.helpers(at, Some(&from)));
            self.fill(at, gap, Target::Row(row, event), queue);
        }
    }

    pub(super) fn index(&self, name: &OwnedServerName) -> usize {
        self.servers
            .iter()
            .position(|server| server.name == *name)
            .unwrap_or(0)
    }

    /// Whom to ask: whoever told of the gap, if somebody did, then those that are connected.
    pub(super) fn helpers(&self, at: usize, first: Option<&OwnedServerName>) -> Vec<OwnedServerName> {
        let server = &self.servers[at];
        let census = server.disk.room.iter().flat_map(|room| room.census.keys());
        let mut names: Vec<_> = census
            .filter(|name| **name != server.name && Some(*name) != first)
            .cloned()
            .collect();
        names.sort_by_key(|name| !server.sessions.contains_key(&self.index(name)));
        first.into_iter().cloned().chain(names).collect()
    }

    pub(super) fn fill(
        &mut self,
        at: usize,
        (gap, effect): (Gap, Effect),
        target: Target,
        queue: VecDeque<(i64, usize, Arc<Event>)>,
    ) {
        self.servers[at].worker = Worker::Filling(Box::new(Filling {
            gap,
            target,
            begun: self.now,
            moved: false,
            queue,
            request: None,
            effect: Some(effect),
        }));
        self.drive(at);
    }

    /// Runs the effects of the gap that is being filled until a peer is asked.
    pub(super) fn drive(&mut self, at: usize) {
        let Worker::Filling(mut filling) = std::mem::take(&mut self.servers[at].worker) else {
            return;
        };
        let Some(mut effect) = filling.effect.take() else {
            self.servers[at].worker = Worker::Filling(filling);
            return;
        };
        let filled = loop {
            let server = &mut self.servers[at];
            effect = match effect {
                Effect::LookUp(ids) => {
                    let here = server.memory.here(&ids);
                    filling.gap.found(ids, &here)
                }
                Effect::Ask(peer, question) => {
                    let tips = server
                        .disk
                        .room
                        .iter()
                        .flat_map(|room| room.head.extremities.iter());
                    let tips = tips.map(|tip| tip.id.clone()).collect();
                    let to = self.index(&peer);
                    let since = self.now.saturating_sub(filling.begun);
                    let patience = Some(gap::patience(&question, since));
                    let question = Request::Question(question, tips);
                    let request = self.ask(at, to, question, Asked::Gap, patience);
                    filling.request = Some(request);
                    self.servers[at].worker = Worker::Filling(filling);
                    return;
                }
                Effect::Keep(events) => {
                    if let Some(version) = server.memory.room.as_ref().map(|room| room.version) {
                        replica::keep(server, version, events);
                    }
                    filling.gap.kept()
                }
                Effect::TakeIn(offer) => {
                    let mut incoming = Incoming::live(Arc::clone(&offer.event));
                    match &filling.target {
                        Target::Row(row, event) if event.id == offer.event.id => incoming.row = Some(*row),
                        Target::Join(join) if join.id == offer.event.id => {
                            (incoming.own, incoming.accepted) = (true, true);
                        }
                        _ => {}
                    }
                    let row = incoming.row;
                    let told = match &offer.told {
                        Some(ids) => replica::told_state(server, ids).map(Some),
                        None => Some(None),
                    };
                    match told {
                        None => filling.gap.refused(),
                        Some(told) => {
                            let bridged = told.is_some();
                            incoming.before = told;
                            let taken = self.take_in(at, incoming);
                            self.meets_its_doom(at, Doom::Gap);
                            filling.moved |= matches!(taken, Taken::Stored(_));
                            if let (Some(_), Taken::Known(outcome) | Taken::Stored(outcome)) = (row, &taken) {
                                self.note_stray(
                                    at,
                                    &offer.event.sender.server_name().to_owned(),
                                    Some(*outcome),
                                );
                            }
                            self.note(at, || {
                                let how = if bridged { " by a told state" } else { "" };
                                format!("takes {} for a gap{how}: {taken:?}", offer.event.id)
                            });
                            filling.gap.taken(match taken {
                                Taken::Lacks {
                                    prev_events,
                                    auth_events,
                                } => gap::Taken::Lacks {
                                    prev_events,
                                    auth_events,
                                },
                                _ => gap::Taken::Settled,
                            })
                        }
                    }
                }
                Effect::Filled => break true,
                Effect::GivenUp => break false,
            };
        };
        self.end_gap(at, *filling, filled);
    }

    pub(super) fn end_gap(&mut self, at: usize, filling: Filling, filled: bool) {
        let now = self.now;
        let server = &mut self.servers[at];
        match filling.target {
            Target::Row(row, _) if filled => server.work.settled(row),
            Target::Row(row, ref event) if server.work.postpone(row, event.sender.server_name(), now) => {}
            Target::Row(row, _) => server.write(vec![Record::Ingested(row)]),
            Target::Extremities if filled && filling.moved => server.work.closed(),
            Target::Extremities => {}
            Target::Join(_) => {
                if let Some(Joining::Entering(entry)) = server.joining.take() {
                    let stored = server.memory.event(&entry.join.id);
                    let accepted = stored.is_some_and(Stored::is_placed);
                    self.gone_on(at, *entry, filled && accepted);
                }
            }
        }
        self.settle(at);
        self.fill_next(at, filling.queue);
        self.wake_worker(at);
    }

    pub(super) fn answered(&mut self, at: usize, request: u64, reply: Reply) {
        let Worker::Filling(filling) = &mut self.servers[at].worker else {
            return;
        };
        if filling.request != Some(request) {
            return;
        }
        filling.request = None;
        let effect = match reply {
            Reply::Answer(answer) => filling.gap.answered(answer),
            _ => filling.gap.refused(),
        };
        filling.effect = Some(effect);
        self.drive(at);
    }
}
