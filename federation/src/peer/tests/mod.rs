//! The machine against itself, and against a peer that breaks the rules.

mod delivery;
mod rules;

use std::time::Duration;

use maru_protocol::{
    LogId, SignedRecord,
    wire::{Cursor, Json, LogItem, limits::DEFAULT_WINDOW_BYTES, log::Event},
};
use ruma::{OwnedServerName, room_id};

use super::{Identity, Window};

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

fn window(items: u32) -> Window {
    Window {
        items,
        bytes: DEFAULT_WINDOW_BYTES,
    }
}
