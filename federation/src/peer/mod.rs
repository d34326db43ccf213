//! One connection with a peer as a pure state machine (`spec/federation.md`, "A connection").
//!
//! A [`Session`] is made when a connection is up and dropped when it is gone. Inputs and time go in, actions
//! come out of [`Session::poll`]; it reads no clock, waits for nothing and asks nobody. Whoever drives it
//! carries the actions out and brings the results back:
//!
//! | action | result |
//! |---|---|
//! | [`Action::Judge`] | [`Session::judged`], or [`Session::close`] with the reason |
//! | [`Action::LoadReceived`] | [`Session::received`] |
//! | [`Action::ReadLog`] | [`Session::page`] |
//! | [`Action::Store`] | [`Session::stored`] |
//! | [`Action::LoadExtremities`] | [`Session::extremities`] |
//!
//! At most one action of each of these kinds is under way at a time. A store that a session has ordered must
//! have ended before the next session with the same peer is told what was received, or a late one could
//! move the stored cursor backwards.
//!
//! - [`handshake`]: who may say what before the log flows.
//! - [`outgoing`]: our log on its way to the peer: window, numbers, acknowledgement.
//! - [`incoming`]: the peer's log on its way to our store.
//! - [`budget`]: how often a peer may say what makes work.
//!
//! Over 500 lines, because the inputs of one machine are the methods of one type, each with what its driver must know.

mod budget;
mod handshake;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use maru_protocol::{
    LogId, SignedRecord,
    wire::{
        CloseCode, Cursor, LogItem, Message, decode, encode,
        frame::LENGTH_BYTES,
        limits::{MAX_EXTREMITIES, MAX_EXTREMITY_ROOMS, MAX_FRAME_BYTES, MAX_HELLO_BYTES},
        message::{Extremities, Hello, Ready, Received, Record, RoomExtremities, Stored},
    },
};
use ruma::OwnedServerName;

use budget::Budget;
use handshake::Handshake;
pub use handshake::{Identity, Role};
use incoming::Incoming;
use outgoing::Outgoing;

/// How long a peer may take from the connection to its `ready`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the oldest frame may wait for its acknowledgement.
pub const STORED_TIMEOUT: Duration = Duration::from_secs(120);

/// How often our forward extremities are said again when nothing else gives reason to.
pub const EXTREMITIES_EVERY: Duration = Duration::from_secs(180);

/// How soon after the last time they are said again when there is reason to.
const EXTREMITIES_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How many frames of extremities a peer may send in [`EXTREMITIES_EVERY`].
const EXTREMITIES_BUDGET: u32 = 200;

/// How many records a peer may send in [`EXTREMITIES_EVERY`].
const RECORD_BUDGET: u32 = 10;

/// How much of the peer's log we allow in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Items in frames that are not acknowledged; at least 1.
    pub items: u32,
    /// Bytes of such frames; at least [`maru_protocol::wire::limits::MIN_WINDOW_BYTES`].
    pub bytes: u32,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes, a frame with its length, to our log stream.
    Send(Vec<u8>),
    /// Find out whether the peer is who it claims to be and may come in.
    Judge(Hello),
    /// Look up how far the peer's log is stored here.
    LoadReceived,
    /// The peer has accepted us and we it: requests and datagrams may flow.
    Ready,
    /// Read our log for the peer. At most `max_items` items whose weights come to at most `max_bytes`; one item
    /// may be heavier if it stands alone.
    ReadLog {
        /// Where to go on; none to begin, as the server sees fit.
        after: Option<Cursor>,
        /// Most items.
        max_items: usize,
        /// Most bytes.
        max_bytes: usize,
    },
    /// Store items of the peer's log and the place after them, durably and together.
    Store {
        /// The peer's log.
        log_id: LogId,
        /// The items, in order.
        items: Vec<LogItem>,
        /// The place after them.
        cursor: Cursor,
    },
    /// The peer has our log up to here. Not said for every frame.
    Acknowledged(Cursor),
    /// Look up our forward extremities in the rooms that we share with the peer.
    LoadExtremities,
    /// The peer's forward extremities: fetch what is missing here.
    HeardExtremities(Vec<RoomExtremities>),
    /// The peer has a newer record.
    HeardRecord(SignedRecord),
    /// End the connection. No action follows.
    Close {
        /// The code.
        code: CloseCode,
        /// For people; may be shown to the peer.
        reason: String,
    },
}

/// One connection with a peer.
///
/// Times are counted from any fixed start, the same for all calls.
#[derive(Debug)]
pub struct Session {
    handshake: Handshake,
    window: Window,
    own_log: LogId,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
    actions: VecDeque<Action>,
    closed: bool,
    started: Duration,
    /// The last sign that the peer gets on with our log: an acknowledgement, or the first frame in flight.
    progress: Duration,
    /// When our extremities are due again.
    extremities_due: Duration,
    /// When they were said last.
    extremities_said: Duration,
    loading_extremities: bool,
    /// Whether they became due again while they were being looked up.
    extremities_again: bool,
    extremities_budget: Budget,
    record_budget: Budget,
}

impl Session {
    /// A connection has come up, in either direction. An acceptor speaks at once.
    pub fn new(role: Role, own: Identity, window: Window, now: Duration) -> Self {
        let own_log = own.log_id;
        let mut session = Self {
            handshake: Handshake::new(role, own),
            window,
            own_log,
            outgoing: None,
            incoming: None,
            actions: VecDeque::new(),
            closed: false,
            started: now,
            progress: now,
            extremities_due: now + EXTREMITIES_EVERY,
            extremities_said: now,
            loading_extremities: false,
            extremities_again: false,
            extremities_budget: Budget::new(EXTREMITIES_BUDGET, EXTREMITIES_EVERY),
            record_budget: Budget::new(RECORD_BUDGET, EXTREMITIES_EVERY),
        };
        if let Some(hello) = session.handshake.first_words() {
            session.send(&Message::Hello(hello));
        }
        session
    }

    /// What is to be done next; to be asked until there is nothing, after every input.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Session::timer`] wants to be called, at the latest; none once the session is closed.
    pub fn timeout(&self) -> Option<Duration> {
        if self.closed {
            return None;
        }
        let Some(outgoing) = &self.outgoing else {
            return Some(self.started + HANDSHAKE_TIMEOUT);
        };
        let stored = (!outgoing.is_idle()).then_some(self.progress + STORED_TIMEOUT);
        Some(stored.map_or(self.extremities_due, |stored| stored.min(self.extremities_due)))
    }

    /// The largest frame that the peer may send now, in bytes after its length.
    pub fn frame_limit(&self) -> usize {
        if self.handshake.is_judged() {
            MAX_FRAME_BYTES
        } else {
            MAX_HELLO_BYTES
        }
    }

    /// Whether both sides have said `ready`.
    pub fn is_ready(&self) -> bool {
        self.outgoing.is_some() && !self.closed
    }

    /// Whether the session has ended by itself or by [`Session::close`].
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Items and bytes of our log that are sent and not acknowledged.
    pub fn in_flight(&self) -> (usize, usize) {
        self.outgoing.as_ref().map_or((0, 0), Outgoing::in_flight)
    }

    /// Whether the peer has stored everything that our log held for it when it was last read.
    pub fn is_caught_up(&self) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::is_caught_up)
    }

    /// A complete frame of the peer's log stream has come, without its length.
    pub fn frame(&mut self, bytes: &[u8], now: Duration) {
        if self.closed {
            return;
        }
        if bytes.len() > self.frame_limit() {
            return self.close(CloseCode::LimitExceeded, "a frame before hello is too large");
        }
        match decode::<Message>(bytes) {
            Ok(message) => self.message(message, bytes.len() + LENGTH_BYTES, now),
            Err(error) => self.close(error.close_code(), &error.to_string()),
        }
    }

    /// The peer is who it claims to be and may come in.
    pub fn judged(&mut self) {
        if self.closed {
            return;
        }
        if let Some(hello) = self.handshake.judged() {
            self.send(&Message::Hello(hello));
        }
        self.actions.push_back(Action::LoadReceived);
    }

    /// How far the peer's log is stored here.
    pub fn received(&mut self, received: Option<Received>, now: Duration) {
        if self.closed || self.incoming.is_some() {
            return;
        }
        let Some(log_id) = self.handshake.peer_log() else {
            return;
        };
        self.incoming = Some(Incoming::new(log_id, self.window));
        let Window { items, bytes } = self.window;
        self.send(&Message::Ready(Ready {
            received,
            items,
            bytes,
        }));
        self.begin(now);
    }

    /// A piece of our log, as [`Action::ReadLog`] asked for it. `more` says whether reading on may give more at
    /// once.
    pub fn page(&mut self, items: Vec<LogItem>, cursor: Cursor, more: bool, now: Duration) {
        if let Some(outgoing) = &mut self.outgoing {
            match outgoing.page(items, cursor, more) {
                Ok(()) => self.advance(now),
                Err(error) => self.close(CloseCode::Internal, &error.to_string()),
            }
        }
    }

    /// There may be something new in our log for this peer.
    pub fn wake(&mut self, now: Duration) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.wake();
            self.advance(now);
        }
    }

    /// Our extremities have moved by an event that its own server may not send to this peer: they are said again soon.
    pub fn owe_extremities(&mut self, now: Duration) {
        let soon = (self.extremities_said + EXTREMITIES_AGAIN_AFTER).max(now);
        self.extremities_due = self.extremities_due.min(soon);
    }

    /// What [`Action::Store`] ordered is durable.
    pub fn stored(&mut self) {
        if self.closed {
            return;
        }
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let number = incoming.stored();
        let next = incoming.next_store();
        if let Some(number) = number {
            self.send(&Message::Stored(Stored { number }));
        }
        self.actions.extend(next);
    }

    /// Our forward extremities in the rooms that we share with the peer.
    ///
    /// Of a room with more than a frame may name, the first are told; the others follow once those are known.
    pub fn extremities(&mut self, mut rooms: Vec<RoomExtremities>) {
        if self.closed {
            return;
        }
        self.loading_extremities = std::mem::take(&mut self.extremities_again);
        if self.loading_extremities {
            self.actions.push_back(Action::LoadExtremities);
        }
        for room in &mut rooms {
            room.extremities.truncate(MAX_EXTREMITIES);
        }
        for rooms in rooms.chunks(MAX_EXTREMITY_ROOMS) {
            self.send(&Message::Extremities(Extremities {
                rooms: rooms.to_vec(),
            }));
        }
    }

    /// We have a newer record, which the peer should know.
    pub fn new_record(&mut self, record: SignedRecord) {
        if self.is_ready() {
            self.send(&Message::Record(Record { record }));
        } else {
            self.handshake.new_record(record);
        }
    }

    /// Time has passed.
    pub fn timer(&mut self, now: Duration) {
        if self.closed {
            return;
        }
        let Some(outgoing) = &self.outgoing else {
            if now >= self.started + HANDSHAKE_TIMEOUT {
                self.close(CloseCode::Timeout, "not ready in time");
            }
            return;
        };
        if !outgoing.is_idle() && now >= self.progress + STORED_TIMEOUT {
            return self.close(CloseCode::Timeout, "nothing acknowledged in time");
        }
        if now >= self.extremities_due {
            self.load_extremities(now);
        }
    }

    /// Ends the connection with a code and a reason, which the peer may be shown.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.closed {
            self.closed = true;
            self.actions.push_back(Action::Close {
                code,
                reason: reason.to_owned(),
            });
        }
    }

    /// A frame of the peer's log stream has come and is decoded already; `bytes` is what it took on the wire, its
    /// length included.
    pub fn message(&mut self, message: Message, bytes: usize, now: Duration) {
        if self.closed {
            return;
        }
        let result = match message {
            Message::Hello(hello) => self.hello(hello),
            Message::Ready(ready) => self.handshake.ready(ready).map(|()| self.begin(now)),
            Message::Log(log) => match &mut self.incoming {
                Some(incoming) if self.outgoing.is_some() => incoming
                    .log(log, bytes)
                    .map(|()| self.actions.extend(incoming.next_store())),
                _ => Err(Offence::order("log before ready")),
            },
            Message::Stored(stored) => self.acknowledged(stored.number, now),
            Message::Extremities(extremities) if self.outgoing.is_some() => {
                self.extremities_budget.spend(now).map(|()| {
                    self.actions
                        .push_back(Action::HeardExtremities(extremities.rooms));
                })
            }
            Message::Record(record) if self.outgoing.is_some() => self
                .record_budget
                .spend(now)
                .map(|()| self.actions.push_back(Action::HeardRecord(record.record))),
            Message::Extremities(_) | Message::Record(_) => Err(Offence::order("a frame before ready")),
        };
        if let Err(offence) = result {
            self.close(offence.code, offence.reason);
        }
    }

    fn hello(&mut self, hello: Hello) -> Result<(), Offence> {
        self.handshake.hello(&hello)?;
        self.actions.push_back(Action::Judge(hello));
        Ok(())
    }

    /// Lets the log flow, once both sides are ready.
    fn begin(&mut self, now: Duration) {
        if self.outgoing.is_some() || self.incoming.is_none() {
            return;
        }
        let Some(ready) = self.handshake.take_ready() else {
            return;
        };
        let after = ready
            .received
            .and_then(|received| (received.log_id == self.own_log).then_some(received.cursor));
        self.actions.push_back(Action::Ready);
        self.actions.extend(after.clone().map(Action::Acknowledged));
        let window = Window {
            items: ready.items,
            bytes: ready.bytes,
        };
        self.outgoing = Some(Outgoing::new(after, window));
        self.progress = now;
        if let Some(record) = self.handshake.unsaid_record() {
            self.send(&Message::Record(Record { record }));
        }
        self.load_extremities(now);
        self.advance(now);
    }

    fn acknowledged(&mut self, number: u64, now: Duration) -> Result<(), Offence> {
        let outgoing = self
            .outgoing
            .as_mut()
            .ok_or(Offence::order("stored before ready"))?;
        let durable = outgoing.acknowledged(number)?;
        self.progress = now;
        self.actions.extend(durable.map(Action::Acknowledged));
        self.advance(now);
        Ok(())
    }

    /// Sends what the window allows and reads on where there is room.
    fn advance(&mut self, now: Duration) {
        let Some(outgoing) = self.outgoing.as_mut().filter(|_| !self.closed) else {
            return;
        };
        if outgoing.is_idle() {
            self.progress = now;
        }
        let frames = std::iter::from_fn(|| outgoing.next_frame());
        self.actions.extend(frames.map(Action::Send));
        self.actions.extend(outgoing.next_read());
        if outgoing.take_caught_up() {
            self.load_extremities(now);
        }
    }

    fn load_extremities(&mut self, now: Duration) {
        self.extremities_due = now + EXTREMITIES_EVERY;
        self.extremities_said = now;
        if std::mem::replace(&mut self.loading_extremities, true) {
            self.extremities_again = true;
        } else {
            self.actions.push_back(Action::LoadExtremities);
        }
    }

    fn send(&mut self, message: &Message) {
        match encode(message) {
            Ok(frame) => self.actions.push_back(Action::Send(frame)),
            Err(error) => self.close(CloseCode::Internal, &error.to_string()),
        }
    }

    /// The name that the peer has given; proven once it is judged.
    pub fn peer_name(&self) -> Option<&OwnedServerName> {
        self.handshake.peer_name()
    }
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offence {
    code: CloseCode,
    reason: &'static str,
}

impl Offence {
    const fn order(reason: &'static str) -> Self {
        Self {
            code: CloseCode::ProtocolError,
            reason,
        }
    }

    const fn limit(reason: &'static str) -> Self {
        Self {
            code: CloseCode::LimitExceeded,
            reason,
        }
    }
}
