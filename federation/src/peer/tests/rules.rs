//! One session against a peer that breaks the rules, or is slow, or has much to say.

use maru_protocol::{
    SignedRecord,
    wire::{
        CloseCode, Cursor, Message, decode, encode,
        limits::MIN_WINDOW_BYTES,
        message::{self, Extremities, Hello, Log, Ready, RoomExtremities, Stored},
    },
};
use ruma::room_id;

use super::{NOW, cursor, identity, item, server, window};
use crate::peer::{
    Action, EXTREMITIES_BUDGET, EXTREMITIES_EVERY, HANDSHAKE_TIMEOUT, Identity, Role, STORED_TIMEOUT, Session,
};

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
