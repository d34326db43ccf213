//! Whole conversations of a peer that says anything.

use std::time::Duration;

use maru_federation::peer::{Action, Identity, Role, Session, Window};
use maru_protocol::{
    LogId, SignedRecord,
    wire::{Cursor, LogItem, frame::LENGTH_BYTES, limits::DEFAULT_WINDOW_BYTES, log::DeviceList},
};
use ruma::{owned_server_name, owned_user_id};

const WINDOW: Window = Window {
    items: 20,
    bytes: DEFAULT_WINDOW_BYTES,
};

/// Frames with their lengths, one after the other, to a server that accepted the connection: whatever comes,
/// no more waits than the window allows, and nothing happens after the end.
pub fn sessions(input: &[u8]) {
    let Ok(record) = SignedRecord::from_bytes(b"own record") else {
        return;
    };
    let own = Identity {
        name: owned_server_name!("own.example"),
        record,
        log_id: LogId([1; 16]),
    };
    let mut session = Session::new(Role::Acceptor, own, WINDOW, Duration::ZERO);
    let mut rest = input;
    let mut now = Duration::ZERO;
    run(&mut session, now);
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (frame, after) = after.split_at(length.min(after.len()));
        rest = after;
        now += Duration::from_secs(7);
        session.frame(frame, now);
        run(&mut session, now);
        session.timer(now);
        run(&mut session, now);
    }
}

/// Carries out what the session wants, as a server with a few things to say would.
fn run(session: &mut Session, now: Duration) {
    let mut closed = false;
    while let Some(action) = session.poll() {
        assert!(!closed, "an action after the end");
        match action {
            Action::Judge(_) => session.judged(),
            Action::LoadReceived => session.received(None, now),
            Action::ReadLog { after, max_items, .. } => {
                assert!(max_items > 0, "asks for nothing");
                let item = LogItem::DeviceList(DeviceList {
                    user_id: owned_user_id!("@ada:own.example"),
                });
                let first = after.is_none();
                let items = if first {
                    vec![item; max_items.min(3)]
                } else {
                    vec![]
                };
                session.page(items, Cursor::new(b"end").unwrap_or_default(), false, now);
            }
            Action::Store { items, .. } => {
                let most = usize::try_from(WINDOW.items).unwrap_or(usize::MAX);
                assert!(items.len() <= most, "more items than the window allows");
                session.stored();
            }
            Action::LoadExtremities => session.extremities(vec![]),
            Action::Close { .. } => closed = true,
            Action::Send(_)
            | Action::Ready
            | Action::Acknowledged(_)
            | Action::HeardExtremities(_)
            | Action::HeardRecord(_) => {}
        }
    }
    assert_eq!(closed || session.timeout().is_none(), session.is_closed());
}
