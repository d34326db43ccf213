//! Two sessions over in-memory logs: whatever breaks, everything arrives once and in order.

use std::collections::VecDeque;

use maru_protocol::{
    LogId,
    wire::{Cursor, LogItem, limits::MIN_WINDOW_BYTES, message::Received},
};
use proptest::prelude::*;

use super::{NOW, cursor, identity, item, position, server, window};
use crate::peer::{Action, Role, Session, Window};

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
