//! The peer's log on its way to our store: frames are counted, gathered while a store is under way, and
//! acknowledged once they are durable.

use std::collections::VecDeque;

use maru_protocol::{LogId, wire::message::Log};

use super::{Action, Offence, Window};

/// Most items that one store takes together.
const STORE_ITEMS: usize = 512;

/// Most bytes of frames that one store takes together, if they are more than one.
const STORE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Incoming {
    log_id: LogId,
    window: Window,
    /// The number of the last frame that came.
    number: u64,
    /// Items and bytes of frames that came and are not acknowledged.
    held: (usize, usize),
    /// Frames that wait for their store, with their bytes.
    waiting: VecDeque<(Log, usize)>,
    /// The store under way: its last number, its items and bytes.
    storing: Option<(u64, usize, usize)>,
}

impl Incoming {
    pub(super) fn new(log_id: LogId, window: Window) -> Self {
        Self {
            log_id,
            window,
            number: 0,
            held: (0, 0),
            waiting: VecDeque::new(),
            storing: None,
        }
    }

    /// A frame has come, of so many bytes.
    pub(super) fn log(&mut self, log: Log, bytes: usize) -> Result<(), Offence> {
        if log.number != self.number + 1 {
            return Err(Offence::order("a log frame out of number"));
        }
        self.number = log.number;
        self.held.0 += log.items.len();
        self.held.1 += bytes;
        let within = |held: usize, most: u32| usize::try_from(most).is_ok_and(|most| held <= most);
        if !within(self.held.0, self.window.items) || !within(self.held.1, self.window.bytes) {
            return Err(Offence::limit("more in flight than the window allows"));
        }
        self.waiting.push_back((log, bytes));
        Ok(())
    }

    /// Takes as many frames as one store may have, unless one is under way.
    pub(super) fn next_store(&mut self) -> Option<Action> {
        if self.storing.is_some() {
            return None;
        }
        let (first, mut bytes) = self.waiting.pop_front()?;
        let Log {
            mut number,
            mut items,
            mut cursor,
        } = first;
        while let Some((next, more)) = self.waiting.front() {
            if items.len() + next.items.len() > STORE_ITEMS || bytes + more > STORE_BYTES {
                break;
            }
            let Some((next, more)) = self.waiting.pop_front() else {
                break;
            };
            bytes += more;
            number = next.number;
            items.extend(next.items);
            cursor = next.cursor;
        }
        self.storing = Some((number, items.len(), bytes));
        Some(Action::Store {
            log_id: self.log_id,
            items,
            cursor,
        })
    }

    /// The store under way has ended; gives the number that may be acknowledged.
    pub(super) fn stored(&mut self) -> Option<u64> {
        let (number, items, bytes) = self.storing.take()?;
        self.held.0 -= items;
        self.held.1 -= bytes;
        Some(number)
    }
}
