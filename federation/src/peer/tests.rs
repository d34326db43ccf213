//! Two sessions against each other over an in-memory log, and one against a peer that breaks the rules.

use std::{collections::VecDeque, time::Duration};

use maru_protocol::{
    LogId, SignedRecord,
    wire::{
        CloseCode, Cursor, Json, LogItem, Message, decode, encode,
        limits::{DEFAULT_WINDOW_BYTES, MIN_WINDOW_BYTES},
        log::Event,
        message::{self, Extremities, Hello, Log, Ready, Received, RoomExtremities, Stored},
    },
};
use proptest::prelude::*;
use ruma::{OwnedServerName, room_id};

use super::*;

const NOW: Duration = Duration::from_secs(1000);

fn server(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
}

fn identity(name: &str) -> Identity {
    Identity {
        name: server(name),
        record: SignedRecord::from_bytes(name.as_bytes()).unwrap(),
        log_id: LogId([name.as_bytes()[0]; 16]),
    }
}

fn cursor(position: usize) -> Cursor {
    Cursor::new(&position.to_be_bytes()).unwrap()
}

fn position(cursor: Option<&Cursor>) -> usize {
    cursor.map_or(0, |cursor| usize::from_be_bytes((**cursor).try_into().unwrap()))
}

fn item(text: &str) -> LogItem {
    LogItem::Event(Event {
        room_id: room_id!("!r:a").to_owned(),
        json: Json::from(text),
    })
}

/// A server that keeps what was stored and forgets everything else when its connection ends.
struct Side {
    name: &'static str,
    log: Vec<LogItem>,
    /// What came from the other's log, and how far that goes.
    stored: Vec<LogItem>,
    received: Option<Received>,
    window: Window,
    session: Option<Session>,
    /// Actions that are not carried out yet.
    pending: VecDeque<Action>,
    /// Frames on their way to the other.
    sent: VecDeque<Vec<u8>>,
    extremities_said: usize,
    acknowledged: Option<Cursor>,
}

impl Side {
    fn new(name: &'static str, window: Window) -> Self {
        Self {
            name,
            log: vec![],
            stored: vec![],
            received: None,
            window,
            session: None,
            pending: VecDeque::new(),
            sent: VecDeque::new(),
            extremities_said: 0,
            acknowledged: None,
        }
    }

    fn connect(&mut self, role: Role) {
        self.session = Some(Session::new(role, identity(self.name), self.window, NOW));
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(action) = self.session.as_mut().and_then(Session::poll) {
            self.pending.push_back(action);
        }
    }

    /// Ends the connection. A store that was under way happens or not.
    fn disconnect(&mut self, store_happens: bool) {
        for action in std::mem::take(&mut self.pending) {
            if let Action::Store {
                log_id,
                items,
                cursor,
            } = action
                && store_happens
            {
                self.store(log_id, items, cursor);
            }
        }
        self.session = None;
        self.sent.clear();
    }

    fn store(&mut self, log_id: LogId, items: Vec<LogItem>, cursor: Cursor) {
        self.stored.extend(items);
        self.received = Some(Received { log_id, cursor });
    }

    fn append(&mut self, item: LogItem) {
        self.log.push(item);
        if let Some(session) = &mut self.session {
            session.wake(NOW);
        }
        self.collect();
    }

    /// Carries out one action; false if there was none.
    fn act(&mut self) -> bool {
        let Some(action) = self.pending.pop_front() else {
            return false;
        };
        let Some(session) = &mut self.session else {
            return true;
        };
        match action {
            Action::Send(frame) => self.sent.push_back(frame),
            Action::Judge(_) => session.judged(),
            Action::LoadReceived => session.received(self.received.clone(), NOW),
            Action::ReadLog {
                after,
                max_items,
                max_bytes,
            } => {
                let from = position(after.as_ref());
                let mut bytes = 0;
                let fitting = self.log[from..].iter().take(max_items).take_while(|item| {
                    let first = bytes == 0;
                    bytes += item.weight();
                    first || bytes <= max_bytes
                });
                let items: Vec<_> = fitting.cloned().collect();
                let to = from + items.len();
                session.page(items, cursor(to), to < self.log.len(), NOW);
            }
            Action::Store {
                log_id,
                items,
                cursor,
            } => {
                self.store(log_id, items, cursor);
                if let Some(session) = &mut self.session {
                    session.stored();
                }
            }
            Action::LoadExtremities => {
                self.extremities_said += 1;
                session.extremities(vec![]);
            }
            Action::Acknowledged(cursor) => {
                assert!(position(Some(&cursor)) >= position(self.acknowledged.as_ref()));
                self.acknowledged = Some(cursor);
            }
            Action::Ready | Action::HeardExtremities(_) | Action::HeardRecord(_) => {}
            Action::Close { code, reason } => panic!("{} closed: {code}: {reason}", self.name),
        }
        self.collect();
        true
    }

    fn hear(&mut self, frame: &[u8]) {
        if let Some(session) = &mut self.session {
            session.frame(&frame[4..], NOW);
        }
        self.collect();
    }
}

fn window(items: u32) -> Window {
    Window {
        items,
        bytes: DEFAULT_WINDOW_BYTES,
    }
}

fn connect(a: &mut Side, b: &mut Side) {
    a.connect(Role::Dialler(server(b.name)));
    b.connect(Role::Acceptor);
}

/// Runs until neither has anything left to do.
fn settle(a: &mut Side, b: &mut Side) {
    loop {
        let mut busy = a.act() | b.act();
        if let Some(frame) = a.sent.pop_front() {
            b.hear(&frame);
            busy = true;
        }
        if let Some(frame) = b.sent.pop_front() {
            a.hear(&frame);
            busy = true;
        }
        if !busy {
            return;
        }
    }
}

#[test]
fn a_backlog_crosses_both_ways_and_extremities_are_said_again_after_it() {
    let (mut a, mut b) = (Side::new("a.org", window(64)), Side::new("b.org", window(1000)));
    a.log = (0..2000).map(|n| item(&format!("a{n}"))).collect();
    b.log = vec![item("b0")];
    connect(&mut a, &mut b);
    settle(&mut a, &mut b);
    assert_eq!(a.stored, b.log);
    assert_eq!(b.stored, a.log);
    assert_eq!(a.acknowledged, Some(cursor(2000)));
    assert_eq!((a.extremities_said, b.extremities_said), (2, 1));
    for side in [&a, &b] {
        let session = side.session.as_ref().unwrap();
        assert!(session.is_ready() && session.is_caught_up());
        assert_eq!(session.in_flight(), (0, 0));
    }

    a.append(item("live"));
    settle(&mut a, &mut b);
    assert_eq!(b.stored, a.log);
    assert_eq!(a.extremities_said, 2);
}

#[test]
fn a_peer_with_a_cursor_of_another_log_begins_where_the_server_says() {
    let (mut a, mut b) = (Side::new("a.org", window(64)), Side::new("b.org", window(64)));
    a.log = vec![item("first"), item("second")];
    b.received = Some(Received {
        log_id: LogId([0; 16]),
        cursor: cursor(1),
    });
    connect(&mut a, &mut b);
    settle(&mut a, &mut b);
    assert_eq!(b.stored, a.log);
    let log_id = LogId([b'a'; 16]);
    assert_eq!(
        b.received,
        Some(Received {
            log_id,
            cursor: cursor(2)
        })
    );
}

#[test]
fn items_that_nearly_fill_the_window_pass_one_by_one() {
    let least = Window {
        items: 3,
        bytes: MIN_WINDOW_BYTES,
    };
    let (mut a, mut b) = (Side::new("a.org", least), Side::new("b.org", least));
    let large = "x".repeat(1024 * 1024);
    a.log = (0..7)
        .map(|n| item(if n % 3 == 1 { "small" } else { &large }))
        .collect();
    connect(&mut a, &mut b);
    settle(&mut a, &mut b);
    assert_eq!(b.stored, a.log);
}

#[test]
fn a_page_of_too_many_items_is_sent_in_several_frames() {
    let mut accepted = Accepted::ready();
    accepted.actions();
    accepted.session.page(vec![item("{}"); 25], cursor(9), false, NOW);
    let mut said = vec![];
    for _ in 0..3 {
        let actions = accepted.actions();
        let [Action::Send(frame), ..] = &actions[..] else {
            panic!("{actions:?}")
        };
        let Ok(Message::Log(log)) = decode(&frame[4..]) else {
            panic!("{frame:?}")
        };
        said.push((log.items.len(), log.cursor));
        accepted
            .session
            .message(Message::Stored(Stored { number: log.number }), 0, NOW);
    }
    assert_eq!(
        said,
        [(10, Cursor::default()), (10, Cursor::default()), (5, cursor(9))]
    );
    assert!(accepted.session.is_caught_up());
}

#[derive(Debug, Clone)]
enum Step {
    Append(bool, usize),
    Act(bool),
    Deliver(bool),
    Break(bool, bool),
    Reconnect(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), 0usize..4).prop_map(|(side, size)| Step::Append(side, [1, 100, 3000, 300_000][size])),
        6 => any::<bool>().prop_map(Step::Act),
        6 => any::<bool>().prop_map(Step::Deliver),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(a, b)| Step::Break(a, b)),
        1 => any::<bool>().prop_map(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_everything_arrives_once_and_in_order(
        steps in proptest::collection::vec(step(), 0..400), items in 1u32..40, backlog in 0usize..600,
    ) {
        let least = Window { items, bytes: MIN_WINDOW_BYTES };
        let (mut a, mut b) = (Side::new("a.org", least), Side::new("b.org", window(1024)));
        a.log = (0..backlog).map(|n| item(&n.to_string())).collect();
        connect(&mut a, &mut b);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(side, size) => {
                    let side = if side { &mut a } else { &mut b };
                    side.append(item(&format!("{n}{}", "x".repeat(size))));
                }
                Step::Act(side) => drop((if side { &mut a } else { &mut b }).act()),
                Step::Deliver(side) => {
                    let (from, to) = if side { (&mut a, &mut b) } else { (&mut b, &mut a) };
                    if let Some(frame) = from.sent.pop_front() {
                        to.hear(&frame);
                    }
                }
                Step::Break(a_stores, b_stores) => {
                    a.disconnect(a_stores);
                    b.disconnect(b_stores);
                }
                Step::Reconnect(by_a) => {
                    a.disconnect(false);
                    b.disconnect(false);
                    if by_a { connect(&mut a, &mut b) } else { connect(&mut b, &mut a) }
                }
            }
        }
        a.disconnect(true);
        b.disconnect(false);
        connect(&mut b, &mut a);
        settle(&mut a, &mut b);
        prop_assert_eq!(&b.stored, &a.log);
        prop_assert_eq!(&a.stored, &b.log);
    }
}

/// A session that accepted a connection from `peer.org`, with what it has done so far.
struct Accepted {
    session: Session,
}

impl Accepted {
    fn new() -> Self {
        let mut session = Session::new(Role::Acceptor, identity("own.org"), window(10), NOW);
        assert!(matches!(session.poll(), Some(Action::Send(_))));
        Self { session }
    }

    fn ready() -> Self {
        let mut accepted = Self::new();
        assert!(matches!(
            accepted.hear(&hello("peer.org", Some("own.org")))[..],
            [Action::Judge(_)]
        ));
        accepted.session.judged();
        accepted.session.received(None, NOW);
        accepted.hear(&ready(10));
        accepted.session.extremities(vec![]);
        assert!(accepted.session.is_ready());
        accepted
    }

    fn hear(&mut self, message: &Message) -> Vec<Action> {
        self.session.frame(&encode(message).unwrap()[4..], NOW);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.session.poll()).collect()
    }

    /// Hears a message and gives the code that it is closed for.
    fn closes(mut self, message: &Message) -> Option<CloseCode> {
        closing(&self.hear(message))
    }
}

fn closing(actions: &[Action]) -> Option<CloseCode> {
    match actions.last() {
        Some(Action::Close { code, .. }) => Some(*code),
        _ => None,
    }
}

fn hello(name: &str, to: Option<&str>) -> Message {
    let Identity { name, record, log_id } = identity(name);
    Message::Hello(Hello {
        name,
        to: to.map(server),
        record,
        log_id,
    })
}

fn ready(items: u32) -> Message {
    Message::Ready(Ready {
        received: None,
        items,
        bytes: MIN_WINDOW_BYTES,
    })
}

fn log(number: u64, items: usize) -> Message {
    Message::Log(Log {
        number,
        items: vec![item("{}"); items],
        cursor: cursor(1),
    })
}

#[test]
fn a_hello_for_another_or_of_ourselves_is_refused() {
    let wrong = Some(CloseCode::WrongServer);
    assert_eq!(
        Accepted::new().closes(&hello("peer.org", Some("other.org"))),
        wrong
    );
    assert_eq!(Accepted::new().closes(&hello("peer.org", None)), wrong);
    assert_eq!(
        Accepted::new().closes(&hello("own.org", Some("own.org"))),
        Some(CloseCode::NotProven)
    );

    let mut dialler = Session::new(Role::Dialler(server("b.org")), identity("a.org"), window(10), NOW);
    assert_eq!(dialler.poll(), None);
    dialler.frame(&encode(&hello("c.org", None)).unwrap()[4..], NOW);
    assert!(matches!(
        dialler.poll(),
        Some(Action::Close {
            code: CloseCode::WrongServer,
            ..
        })
    ));
}

#[test]
fn a_record_that_came_after_our_hello_is_told_once_both_are_ready() {
    let mut accepted = Accepted::new();
    let newer = SignedRecord::from_bytes(b"newer").unwrap();
    accepted.session.new_record(newer.clone());
    accepted.hear(&hello("peer.org", Some("own.org")));
    accepted.session.judged();
    accepted.session.received(None, NOW);
    accepted.actions();
    let told = |actions: Vec<Action>| {
        let record = Message::Record(message::Record {
            record: newer.clone(),
        });
        let frame = Action::Send(encode(&record).unwrap());
        actions.iter().filter(|action| **action == frame).count()
    };
    assert_eq!(told(accepted.hear(&ready(10))), 1);
    accepted.session.new_record(newer.clone());
    assert_eq!(told(accepted.actions()), 1);
    assert_eq!(told(Accepted::ready().actions()), 0);
}

#[test]
fn frames_out_of_their_order_end_the_connection() {
    let order = Some(CloseCode::ProtocolError);
    for early in [ready(1), log(1, 1), Message::Stored(Stored { number: 1 })] {
        assert_eq!(Accepted::new().closes(&early), order, "{early:?}");
    }
    for late in [
        hello("peer.org", Some("own.org")),
        ready(1),
        log(2, 1),
        Message::Stored(Stored { number: 1 }),
    ] {
        assert_eq!(Accepted::ready().closes(&late), order, "{late:?}");
    }
    let mut accepted = Accepted::ready();
    assert_eq!(closing(&accepted.hear(&log(1, 1))), None);
    assert_eq!(accepted.closes(&log(1, 1)), order);

    let mut accepted = Accepted::new();
    accepted.hear(&hello("peer.org", Some("own.org")));
    assert_eq!(accepted.closes(&ready(0)), order);
}

#[test]
fn what_is_not_understood_is_named() {
    let mut accepted = Accepted::ready();
    accepted.session.frame(b"\x82\x63new\xa0", NOW);
    let actions = accepted.actions();
    assert_eq!(closing(&actions), Some(CloseCode::UnknownMessage));
    assert!(format!("{actions:?}").contains("new"));
    // Nothing that comes later changes anything.
    accepted.session.frame(b"\x82\x63new\xa0", NOW);
    accepted.session.wake(NOW);
    accepted.session.stored();
    assert_eq!(accepted.actions(), []);

    let mut accepted = Accepted::ready();
    accepted.session.frame(b"garbage", NOW);
    assert_eq!(closing(&accepted.actions()), Some(CloseCode::ProtocolError));

    let mut accepted = Accepted::new();
    accepted.session.frame(&vec![0; 20_000], NOW);
    assert_eq!(closing(&accepted.actions()), Some(CloseCode::LimitExceeded));
}

#[test]
fn more_than_the_window_is_refused() {
    let mut accepted = Accepted::ready();
    assert_eq!(closing(&accepted.hear(&log(1, 6))), None);
    assert_eq!(closing(&accepted.hear(&log(2, 4))), None);
    assert_eq!(
        closing(&accepted.hear(&log(3, 1))),
        Some(CloseCode::LimitExceeded)
    );

    // Once the first store is durable there is room for what it held.
    let mut accepted = Accepted::ready();
    accepted.hear(&log(1, 6));
    accepted.session.stored();
    let actions = accepted.actions();
    let Some(Action::Send(frame)) = actions.first() else {
        panic!("{actions:?}")
    };
    assert_eq!(
        decode::<Message>(&frame[4..]),
        Ok(Message::Stored(Stored { number: 1 }))
    );
    assert_eq!(closing(&accepted.hear(&log(2, 10))), None);
}

#[test]
fn frames_that_come_during_a_store_are_stored_together() {
    let mut accepted = Accepted::ready();
    assert!(matches!(&accepted.hear(&log(1, 1))[..], [Action::Store { items, .. }] if items.len() == 1));
    assert_eq!(accepted.hear(&log(2, 2)), []);
    assert_eq!(accepted.hear(&log(3, 3)), []);
    accepted.session.stored();
    assert!(
        matches!(&accepted.actions()[..], [Action::Send(_), Action::Store { items, .. }] if items.len() == 5)
    );
    accepted.session.stored();
    let actions = accepted.actions();
    let [Action::Send(frame)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        decode::<Message>(&frame[4..]),
        Ok(Message::Stored(Stored { number: 3 }))
    );
}

#[test]
fn acknowledgement_goes_forward_and_never_beyond_what_was_sent() {
    let sent = || {
        let mut accepted = Accepted::ready();
        accepted.session.page(vec![item("1")], cursor(1), true, NOW);
        accepted.session.page(vec![item("2")], cursor(2), false, NOW);
        accepted.actions();
        accepted
    };
    let stored = |number| Message::Stored(Stored { number });
    assert_eq!(sent().closes(&stored(3)), Some(CloseCode::ProtocolError));
    assert_eq!(sent().closes(&stored(0)), Some(CloseCode::ProtocolError));
    let mut accepted = sent();
    assert_eq!(closing(&accepted.hear(&stored(1))), None);
    assert_eq!(accepted.closes(&stored(1)), Some(CloseCode::ProtocolError));
    let mut accepted = sent();
    let actions = accepted.hear(&stored(2));
    assert!(actions.contains(&Action::Acknowledged(cursor(2))));
    assert_eq!(actions.last(), Some(&Action::LoadExtremities));
}

#[test]
fn time_ends_what_does_not_move_and_repeats_extremities() {
    let mut waiting = Accepted::new();
    assert_eq!(waiting.session.timeout(), Some(NOW + HANDSHAKE_TIMEOUT));
    waiting.session.timer(NOW + HANDSHAKE_TIMEOUT);
    assert_eq!(closing(&waiting.actions()), Some(CloseCode::Timeout));
    assert_eq!(waiting.session.timeout(), None);

    let mut idle = Accepted::ready();
    idle.session.page(vec![], cursor(0), false, NOW);
    idle.hear(&Message::Stored(Stored { number: 1 }));
    assert_eq!(idle.session.timeout(), Some(NOW + EXTREMITIES_EVERY));
    idle.session.timer(NOW + EXTREMITIES_EVERY);
    assert_eq!(idle.actions(), [Action::LoadExtremities]);
    assert_eq!(idle.session.timeout(), Some(NOW + 2 * EXTREMITIES_EVERY));

    let mut stuck = Accepted::ready();
    stuck.session.page(vec![item("1")], cursor(1), false, NOW);
    stuck.actions();
    assert_eq!(stuck.session.timeout(), Some(NOW + STORED_TIMEOUT));
    stuck.session.timer(NOW + STORED_TIMEOUT);
    assert_eq!(closing(&stuck.actions()), Some(CloseCode::Timeout));
}

#[test]
fn many_rooms_are_told_in_several_frames_and_too_many_frames_are_refused() {
    let mut accepted = Accepted::ready();
    accepted.actions();
    let room = RoomExtremities {
        room_id: room_id!("!r:a").to_owned(),
        extremities: vec![],
    };
    accepted.session.extremities(vec![room.clone(); 2500]);
    assert_eq!(accepted.actions().len(), 3);

    let said = Message::Extremities(Extremities { rooms: vec![room] });
    for _ in 0..EXTREMITIES_BUDGET {
        assert!(matches!(accepted.hear(&said)[..], [Action::HeardExtremities(_)]));
    }
    assert_eq!(accepted.closes(&said), Some(CloseCode::LimitExceeded));
}
