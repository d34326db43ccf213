//! Our log on its way to the peer: one page read is one frame, and the window says how many are in flight.

use std::collections::VecDeque;

use maru_protocol::wire::{
    Cursor, FrameError, LogItem, Message, encode, limits::MAX_LOG_ITEMS, message::Log,
};

use super::{Action, Offence, Window};

/// Most bytes of items that are read for one frame: large enough to fill a commit, small enough that the
/// next frame follows while this one is stored.
const PAGE_BYTES: usize = 512 * 1024;

/// Bytes of a `log` frame without its items, at most.
const FRAME_OVERHEAD: usize = 256;

/// How many acknowledged items the server is told of at once while more are in flight.
const TELL_AFTER_ITEMS: usize = 1024;

#[derive(Debug)]
pub(super) struct Outgoing {
    window: Window,
    /// How far our log is read for this peer.
    cursor: Option<Cursor>,
    /// How far it is sent.
    sent: Option<Cursor>,
    /// The number of the last frame that was made.
    number: u64,
    /// Frames that the window has no room for yet.
    held: VecDeque<Frame>,
    in_flight: VecDeque<InFlight>,
    items: usize,
    bytes: usize,
    reading: bool,
    /// Whether something came while the log was being read.
    woken: bool,
    /// Whether reading on may give something.
    more: bool,
    /// Whether more than one page was waiting since the peer had last caught up.
    behind: bool,
    /// Whether the end of the log has been reached once.
    begun: bool,
    /// Items acknowledged that the server was not told of yet.
    untold: usize,
}

#[derive(Debug)]
struct Frame {
    number: u64,
    bytes: Vec<u8>,
    items: usize,
    cursor: Cursor,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    items: usize,
    bytes: usize,
    cursor: Cursor,
}

impl Outgoing {
    /// From the cursor that the peer has, within the window that it allows.
    pub(super) fn new(after: Option<Cursor>, window: Window) -> Self {
        Self {
            window,
            sent: after.clone(),
            cursor: after,
            number: 0,
            held: VecDeque::new(),
            in_flight: VecDeque::new(),
            items: 0,
            bytes: 0,
            reading: false,
            woken: false,
            more: true,
            behind: false,
            begun: false,
            untold: 0,
        }
    }

    /// Items and bytes that are sent and not acknowledged.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        (self.items, self.bytes)
    }

    /// Whether nothing waits for an acknowledgement.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the peer has everything that there was when the log was last read.
    pub(super) fn is_caught_up(&self) -> bool {
        !self.more && !self.reading && self.held.is_empty() && self.is_idle()
    }

    /// Whether a backlog of more than one page has just come to its end.
    pub(super) fn take_caught_up(&mut self) -> bool {
        self.behind && self.is_caught_up() && std::mem::take(&mut self.behind)
    }

    /// There may be something new.
    pub(super) fn wake(&mut self) {
        if self.reading {
            self.woken = true;
        } else {
            self.more = true;
        }
    }

    /// What the read under way has given.
    ///
    /// A page without items only moves the place to read on from, which the peer need not hear; but once in
    /// a connection it is told, so that it has a place in this log at all.
    pub(super) fn page(&mut self, items: Vec<LogItem>, cursor: Cursor, more: bool) -> Result<(), FrameError> {
        self.reading = false;
        self.more = std::mem::take(&mut self.woken) || more;
        self.behind |= more;
        let begins = !self.begun && !more && self.sent.as_ref() != Some(&cursor);
        self.begun |= !more;
        self.cursor = Some(cursor.clone());
        if items.is_empty() && !begins {
            return Ok(());
        }
        self.hold(items, cursor)
    }

    /// Makes frames of a page: one, unless the server gave more than a frame or the window can hold. Of
    /// several, all but the last say the place before the page, since the places between are not known; after
    /// a break their items come again.
    fn hold(&mut self, mut items: Vec<LogItem>, end: Cursor) -> Result<(), FrameError> {
        let most = size(self.window.items).clamp(1, MAX_LOG_ITEMS);
        loop {
            let rest = items.split_off(items.len().min(most));
            let last = rest.is_empty();
            let cursor = if last {
                end.clone()
            } else {
                self.sent.clone().unwrap_or_default()
            };
            self.number += 1;
            let (number, count) = (self.number, items.len());
            let frame = Message::Log(Log {
                number,
                items,
                cursor: cursor.clone(),
            });
            self.held.push_back(Frame {
                number,
                bytes: encode(&frame)?,
                items: count,
                cursor,
            });
            if last {
                return Ok(());
            }
            items = rest;
        }
    }

    /// The next frame that waits, if the window has room for it.
    pub(super) fn next_frame(&mut self) -> Option<Vec<u8>> {
        let (free_items, free_bytes) = self.free();
        let idle = self.is_idle();
        let fits = |frame: &mut Frame| idle || frame.items <= free_items && frame.bytes.len() <= free_bytes;
        let Frame {
            number,
            bytes,
            items,
            cursor,
        } = self.held.pop_front_if(fits)?;
        self.items += items;
        self.bytes += bytes.len();
        self.sent = Some(cursor.clone());
        self.in_flight.push_back(InFlight {
            number,
            items,
            bytes: bytes.len(),
            cursor,
        });
        Some(bytes)
    }

    /// What to read next, if there may be something and the window has room worth reading for.
    pub(super) fn next_read(&mut self) -> Option<Action> {
        if self.reading || !self.held.is_empty() || !self.more {
            return None;
        }
        let (free_items, free_bytes) = self.free();
        let worth_it = free_items * 8 >= size(self.window.items) && free_bytes * 8 >= size(self.window.bytes);
        if !self.is_idle() && !worth_it {
            return None;
        }
        self.reading = true;
        self.more = false;
        Some(Action::ReadLog {
            after: self.cursor.clone(),
            max_items: free_items.min(MAX_LOG_ITEMS),
            max_bytes: free_bytes.saturating_sub(FRAME_OVERHEAD).min(PAGE_BYTES),
        })
    }

    /// The peer has everything up to a frame. Gives the cursor that the server is to be told of, now and then.
    pub(super) fn acknowledged(&mut self, number: u64) -> Result<Option<Cursor>, Offence> {
        let first = self.in_flight.front().map(|frame| frame.number);
        let last = self.in_flight.back().map(|frame| frame.number);
        if first.is_none_or(|first| number < first) || last.is_none_or(|last| number > last) {
            return Err(Offence::order("acknowledged what is not in flight"));
        }
        let mut durable = None;
        while let Some(frame) = self.in_flight.pop_front_if(|frame| frame.number <= number) {
            self.items -= frame.items;
            self.bytes -= frame.bytes;
            self.untold += frame.items;
            durable = Some(frame.cursor);
        }
        if !self.is_idle() && self.untold < TELL_AFTER_ITEMS {
            return Ok(None);
        }
        self.untold = 0;
        Ok(durable.filter(|cursor| !cursor.is_empty()))
    }

    fn free(&self) -> (usize, usize) {
        (
            size(self.window.items).saturating_sub(self.items),
            size(self.window.bytes).saturating_sub(self.bytes),
        )
    }
}

fn size(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
