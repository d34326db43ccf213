//! How far a reader has come: log ids, positions, places, and the tokens that clients carry
//! (`spec/architecture.md`, "From above").
//!
//! A position says when this server learnt of something; a place says where an event stands in its
//! room's timeline. Sync goes by position, `/messages` by place, and no code may mix them: hence types.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The random id of one database's log. It changes on restore, which makes older cursors void.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 16]);

/// A position in the log: 1 for the first change, 0 before any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub i64);

/// A place in one room's timeline. Outliers have none.
///
/// Live events count up from 1 in order of arrival. What happened before them is backfilled, and counts
/// down from 0. Where a live event comes and those before it cannot be had, a new stretch of the timeline
/// begins with it, so far on that what is missing can be backfilled in the same way, counting down from
/// there. So the order of places is the order of the timeline, whatever comes when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Place(pub i64);

impl Position {
    /// Before every change.
    pub const START: Self = Self(0);

    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Place {
    /// The place of the first live event of a room.
    pub const FIRST_LIVE: Self = Self(1);

    /// From the beginning of one stretch to that of the next: half for live events, half for what is
    /// backfilled before the next.
    const STRETCH: i64 = 1 << 32;

    /// Where the next stretch begins: for a live event after a gap.
    pub fn next_stretch(self) -> Self {
        let stretch = (self.0.max(Self::FIRST_LIVE.0) - Self::FIRST_LIVE.0) / Self::STRETCH;
        Self((stretch + 1) * Self::STRETCH + Self::FIRST_LIVE.0)
    }

    /// Whether a stretch begins here: an event at this place that names others before it had a gap before
    /// it when it came.
    pub fn begins_stretch(self) -> bool {
        self.is_live() && (self.0 - Self::FIRST_LIVE.0) % Self::STRETCH == 0
    }

    /// Whether an event at this place is live, and not backfilled.
    pub fn is_live(self) -> bool {
        let from_first = self.0 - Self::FIRST_LIVE.0;
        from_first >= 0 && from_first % Self::STRETCH < Self::STRETCH / 2
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
        // Every answer of a sync names the log: digit by digit, without the machinery of number formats.
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(*byte))
        })
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// Why a token from a client could not be read. A token that was never ours answers
/// `M_INVALID_PARAM` or a full sync; it is never guessed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not a token of this kind, or not in its one spelling.
    #[error("not a token of this server")]
    Malformed,
    /// A number is out of range.
    #[error("a number of the token is out of range")]
    OutOfRange,
}

impl FromStr for LogId {
    type Err = TokenError;

    /// Reads 32 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut bytes = [0; 16];
        if text.len() != 2 * bytes.len()
            || !text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(TokenError::Malformed);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| TokenError::Malformed)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| TokenError::Malformed)?;
        }
        Ok(Self(bytes))
    }
}

/// How far a device has been told of what lives in memory only (typing, presence), at each node that it has been at.
///
/// Each start of a node counts by itself. The upper bits of a count say which start it is of; so a node finds its own, and
/// passes the others on. A device that comes back to a node is told what has changed since it was there, and one that comes
/// for the first time is told all, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EphemeralCounts([u64; Self::MOST]);

impl EphemeralCounts {
    /// Nodes whose counts are kept: those where the device was last.
    pub const MOST: usize = 8;

    /// Bits of a count below those that say of which start it is.
    const COUNT_BITS: u32 = 40;

    /// The first count of a start at a time in milliseconds since 1970: by the start's number where it has one. Where a
    /// process has a database to itself it has none, and the time in microseconds is further on than the process before has
    /// come.
    pub fn first(start: Option<u64>, now_ms: u64) -> u64 {
        start.map_or(now_ms.saturating_mul(1_000), Self::first_of)
    }

    /// The first count of a start, by the start's number among all that a database has had. Above 2^24 numbers come again.
    pub fn first_of(start: u64) -> u64 {
        start << Self::COUNT_BITS
    }

    /// Where only one node was.
    pub fn at(count: u64) -> Self {
        Self::default().moved_to(count)
    }

    /// The newest count: that of the node that gave it.
    pub fn newest(&self) -> u64 {
        self.0[0]
    }

    /// How far the device has been told at the start of a node that stands at `now`; 0 where it has not been there, or is
    /// ahead of it.
    pub fn of_start_at(&self, now: u64) -> u64 {
        let own = self.0.iter().find(|count| is_one_start(**count, now));
        own.copied().filter(|count| *count <= now).unwrap_or(0)
    }

    /// After an answer of a node whose start stands at `now`. Beyond [`Self::MOST`] nodes the one left longest ago goes.
    #[must_use]
    pub fn moved_to(mut self, now: u64) -> Self {
        let own = self
            .0
            .iter()
            .position(|count| *count == 0 || is_one_start(*count, now));
        let own = own.unwrap_or(Self::MOST - 1);
        self.0[..=own].rotate_right(1);
        self.0[0] = now;
        self
    }
}

/// Whether two counts are of one start of a node.
fn is_one_start(one: u64, other: u64) -> bool {
    one >> EphemeralCounts::COUNT_BITS == other >> EphemeralCounts::COUNT_BITS
}

impl fmt::Display for EphemeralCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.newest().fmt(f)?;
        let others = self.0[1..].iter().take_while(|count| **count != 0);
        others.into_iter().try_for_each(|count| write!(f, ".{count}"))
    }
}

impl FromStr for EphemeralCounts {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut counts = Self::default();
        for (at, count) in text.split('.').enumerate() {
            let place = counts.0.get_mut(at).ok_or(TokenError::Malformed)?;
            *place = integer(count)?;
            if at > 0 && *place == 0 {
                return Err(TokenError::Malformed);
            }
        }
        Ok(counts)
    }
}

/// The `since` and `next_batch` of sync: `s<log id>_<position>_<ephemeral counts>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SinceToken {
    /// The log that the position counts in.
    pub log_id: LogId,
    /// Everything up to and including this position has been handed out.
    pub position: Position,
    /// How far what lives in memory only (typing, presence) has been; a restart resets it harmlessly.
    pub ephemeral: EphemeralCounts,
}

impl fmt::Display for SinceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}_{}", self.log_id, self.position, self.ephemeral)
    }
}

impl FromStr for SinceToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.strip_prefix('s').ok_or(TokenError::Malformed)?.split('_');
        let (Some(log_id), Some(position), Some(ephemeral), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let position = integer(position)?;
        if position < 0 {
            return Err(TokenError::OutOfRange);
        }
        Ok(Self {
            log_id: log_id.parse()?,
            position: Position(position),
            ephemeral: ephemeral.parse()?,
        })
    }
}

/// The `pos` of sliding sync (MSC4186): `<since>` while nothing of the connection is kept, then
/// `<since>~<connection>.<generation>.<nonce>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlidingToken {
    /// Everything up to and including this has been handed out, of the rooms that the connection follows.
    pub since: SinceToken,
    /// What of the connection the device has been sent; none before the first room.
    pub point: Option<ConnectionPoint>,
}

/// A state of a sliding sync connection: which rooms a device has been sent, and what of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionPoint {
    /// The connection's random number.
    pub connection: i64,
    /// How often what is kept of it had changed.
    pub generation: i64,
    /// The random number of the answer that made the generation: of two answers to one request, the device has one.
    pub nonce: i64,
}

impl fmt::Display for SlidingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.since.fmt(f)?;
        match &self.point {
            None => Ok(()),
            Some(point) => write!(f, "~{}.{}.{}", point.connection, point.generation, point.nonce),
        }
    }
}

impl FromStr for SlidingToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let Some((since, point)) = text.split_once('~') else {
            let since = text.parse()?;
            return Ok(Self { since, point: None });
        };
        let mut parts = point.split('.');
        let (Some(connection), Some(generation), Some(nonce), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        Ok(Self {
            since: since.parse()?,
            point: Some(ConnectionPoint {
                connection: integer(connection)?,
                generation: integer(generation)?,
                nonce: integer(nonce)?,
            }),
        })
    }
}

/// The `from`, `to`, `start`, `end` and `prev_batch` of `/messages` and its kin.
///
/// A place token stands in the gap just *after* the event at its place, whichever way the reader goes:
/// backwards it continues with that event, forwards with the one after it. So one token serves both
/// directions and no event is given twice or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageToken {
    /// `t<place>`: the gap after this place.
    Place(Place),
    /// A sync token, or a `pos` of sliding sync: the gap after the last event of the room with a log position at or before
    /// it.
    Since(SinceToken),
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => write!(f, "t{place}"),
            Self::Since(since) => since.fmt(f),
        }
    }
}

impl FromStr for PageToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        match text.strip_prefix('t') {
            Some(place) => Ok(Self::Place(Place(integer(place)?))),
            None => Ok(Self::Since(text.parse::<SlidingToken>()?.since)),
        }
    }
}

impl From<Place> for PageToken {
    fn from(place: Place) -> Self {
        Self::Place(place)
    }
}

impl From<SinceToken> for PageToken {
    fn from(since: SinceToken) -> Self {
        Self::Since(since)
    }
}

/// Reads an integer in its one spelling: no plus sign, no leading zeros, no `-0`.
fn integer<T: FromStr + ToString>(text: &str) -> Result<T, TokenError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TokenError::Malformed);
    }
    let value = text.parse::<T>().map_err(|_| TokenError::OutOfRange)?;
    if value.to_string() == text {
        Ok(value)
    } else {
        Err(TokenError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn foreign_spellings_are_refused() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(format!("s{id}_7_0").parse::<SinceToken>().is_ok());
        for bad in [
            String::new(),
            "s".to_owned(),
            id.to_owned(),
            format!("s{id}_7"),
            format!("s{id}_7_0_0"),
            format!("s{id}_07_0"),
            format!("s{id}_+7_0"),
            format!("s{id}_-1_0"),
            format!("s{id}_7_-1"),
            format!("s{id}_9223372036854775808_0"),
            format!("s{id}_7_1.0"),
            format!("s{id}_7_1."),
            format!("s{id}_7_1.2.3.4.5.6.7.8.9"),
            format!("s{}_7_0", id.to_uppercase()),
            format!("s{}é_7_0", &id[..30]),
        ] {
            assert!(bad.parse::<SinceToken>().is_err(), "{bad}");
            assert!(bad.parse::<PageToken>().is_err(), "{bad}");
        }
        for bad in [
            "t",
            "t-",
            "t-0",
            "t01",
            "t 1",
            "t1_2",
            "t9223372036854775808",
            "p1",
        ] {
            assert!(bad.parse::<PageToken>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_known_at_each_node_that_it_was_at_lately() {
        let first = EphemeralCounts::first_of;
        let counts = EphemeralCounts::at(first(3) + 7);
        assert_eq!(counts.of_start_at(first(3) + 9), first(3) + 7);
        assert_eq!(counts.of_start_at(first(3) + 6), 0, "ahead of the node");
        assert_eq!(counts.of_start_at(first(4) + 9), 0, "it was never there");
        let counts = counts.moved_to(first(4)).moved_to(first(3) + 8);
        assert_eq!(counts.newest(), first(3) + 8);
        assert_eq!(counts.of_start_at(first(4) + 9), first(4));
        assert_eq!(counts.to_string(), format!("{}.{}", first(3) + 8, first(4)));
        let starts = 5..5 + EphemeralCounts::MOST as u64 - 1;
        let counts = starts.fold(counts, |counts, start| counts.moved_to(first(start)));
        assert_eq!(counts.of_start_at(first(4) + 9), 0, "it was left longest ago");
        assert_eq!(counts.of_start_at(first(3) + 9), first(3) + 8);
    }

    #[test]
    fn a_stretch_has_room_for_what_comes_and_for_what_is_missing() {
        assert!(Place::FIRST_LIVE.begins_stretch());
        assert!(!Place(0).is_live() && !Place(0).begins_stretch() && !Place(-7).is_live());
        let mut last = Place(20);
        for _ in 0..3 {
            let first = last.next_stretch();
            assert!(last < first && first.begins_stretch());
            assert!(!Place(first.0 - 1).is_live() && !Place(first.0 - 1_000_000).is_live());
            last = Place(first.0 + 1_000_000);
            assert!(last.is_live() && !last.begins_stretch());
        }
        assert_eq!(Place(-7).next_stretch(), Place(20).next_stretch());
    }

    proptest! {
        #[test]
        fn tokens_survive_the_trip(
            log in any::<[u8; 16]>(), position in 0..=i64::MAX, counts in prop::collection::vec(any::<u64>(), 1..12),
            place in any::<i64>(),
        ) {
            let counts = counts.into_iter().fold(EphemeralCounts::default(), EphemeralCounts::moved_to);
            let since = SinceToken { log_id: LogId(log), position: Position(position), ephemeral: counts };
            prop_assert_eq!(since.to_string().parse(), Ok(since));
            prop_assert_eq!(since.to_string().parse(), Ok(PageToken::Since(since)));
            let point = ConnectionPoint { connection: position, generation: place, nonce: place };
            for point in [None, Some(point)] {
                let pos = SlidingToken { since, point };
                prop_assert_eq!(pos.to_string().parse(), Ok(pos));
                prop_assert_eq!(pos.to_string().parse(), Ok(PageToken::Since(since)));
            }
            let page = PageToken::Place(Place(place));
            prop_assert_eq!(page.to_string().parse(), Ok(page));
        }

        #[test]
        fn what_is_read_is_spelt_the_same(text in "[st]?[0-9a-f_-]{0,60}") {
            if let Ok(token) = text.parse::<PageToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
