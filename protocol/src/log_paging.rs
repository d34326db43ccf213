//! What a peer is sent of a server's log: a page at a time, and how far each goes (`spec/federation.md`, "Cursors and
//! breaks").
//!
//! Pure: the server reads what waits for the peer from its database, a simulation from its model.

use crate::cursor::{LogId, Position};
use crate::wire::log::{Cursor, LogItem};

/// A cursor of a server's own log: the log's id and a position, 24 bytes.
#[must_use]
pub fn cursor_at(log_id: LogId, position: Position) -> Cursor {
    let bytes = [&log_id.0[..], &position.0.to_be_bytes()].concat();
    Cursor::new(&bytes).unwrap_or_default()
}

/// The position of a cursor that this server made, if it is of this log and not beyond its `end`.
#[must_use]
pub fn position_of(cursor: &Cursor, log_id: LogId, end: Position) -> Option<Position> {
    let (log, position) = cursor.split_at_checked(16)?;
    let position = Position(i64::from_be_bytes(position.try_into().ok()?));
    (log == log_id.0 && position.0 >= 0 && position <= end).then_some(position)
}

/// How much a peer has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Items.
    pub items: usize,
    /// Bytes, by [`LogItem::weight`].
    pub bytes: usize,
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What the peer is sent.
    pub items: Vec<LogItem>,
    /// Up to where that is all.
    pub reached: Position,
}

impl Page {
    /// Fills a page that begins after a position. `skipped` says what is left out and goes first; `waiting` is, in log
    /// order, what is for the peer up to and with `complete`. At least one item fits, however large it is.
    #[must_use]
    pub fn fill(
        after: Position,
        skipped: Vec<LogItem>,
        waiting: impl IntoIterator<Item = (Position, LogItem)>,
        complete: Position,
        room: Room,
    ) -> Self {
        let mut items = skipped;
        let mut bytes = items.iter().map(LogItem::weight).sum::<usize>();
        let mut last = after;
        for (position, item) in waiting {
            let is_full = items.len() >= room.items || bytes + item.weight() > room.bytes;
            if is_full && !items.is_empty() {
                let reached = last;
                return Self { items, reached };
            }
            bytes += item.weight();
            items.push(item);
            last = position;
        }
        Self {
            items,
            reached: complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::log_paging::*;
    use crate::wire::log::DeviceList;

    fn item() -> LogItem {
        LogItem::DeviceList(DeviceList {
            user_id: "@a:b.example".try_into().unwrap(),
        })
    }

    #[test]
    fn a_cursor_of_another_log_or_beyond_the_end_is_none() {
        let (log, end) = (LogId([7; 16]), Position(10));
        let cursor = cursor_at(log, Position(9));
        assert_eq!(position_of(&cursor, log, end), Some(Position(9)));
        assert_eq!(position_of(&cursor, LogId([8; 16]), end), None);
        assert_eq!(position_of(&cursor_at(log, Position(11)), log, end), None);
        assert_eq!(position_of(&Cursor::new(b"short").unwrap(), log, end), None);
    }

    #[test]
    fn a_page_ends_where_it_is_full_and_at_the_end_of_what_is_known() {
        let page = |items, bytes| {
            let waiting = [2, 5, 7].map(|position| (Position(position), item()));
            Page::fill(
                Position(1),
                Vec::new(),
                waiting,
                Position(9),
                Room { items, bytes },
            )
        };
        let weight = item().weight();
        assert_eq!(page(2, 10 * weight).reached, Position(5), "full by items");
        assert_eq!(page(9, 2 * weight).items.len(), 2, "full by bytes");
        assert_eq!(
            page(9, 1).reached,
            Position(2),
            "one that is too large goes alone"
        );
        assert_eq!(page(9, 10 * weight).reached, Position(9), "beyond the last item");
    }
}
