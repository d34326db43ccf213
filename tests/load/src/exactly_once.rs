//! Did every message arrive exactly once? Numbered markers go into the messages, and are counted where they come out.

use std::fmt;

use memchr::memmem;

/// The numbered text that one scenario puts into its messages. No two scenarios and no two runs share it.
#[derive(Debug, Clone)]
pub(crate) struct Marker {
    prefix: String,
    finder: memmem::Finder<'static>,
}

const DIGITS: usize = 8;

impl Marker {
    /// A marker for a unique name of letters and digits.
    pub(crate) fn new(name: &str) -> Self {
        let prefix = format!("marker-{name}-");
        let finder = memmem::Finder::new(prefix.as_bytes()).into_owned();
        Self { prefix, finder }
    }

    /// The text of message `number`.
    pub(crate) fn text(&self, number: usize) -> String {
        format!("{}{number:0DIGITS$}", self.prefix)
    }

    /// The numbers of all markers in `bytes`, found without parsing what stands around them. A marker that is cut
    /// off or has no number counts as `usize::MAX`, which is never expected.
    pub(crate) fn find<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        self.finder.find_iter(bytes).map(move |at| {
            let start = at + self.prefix.len();
            let digits = bytes
                .get(start..start + DIGITS)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            digits
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(usize::MAX)
        })
    }
}

/// Counts the messages that one reader has seen.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    seen: Vec<u8>,
    distinct: usize,
    strangers: usize,
}

/// What is wrong with what a reader has seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Discrepancy {
    /// How many never came.
    pub(crate) missing: usize,
    /// How many came more than once.
    pub(crate) doubled: usize,
    /// How many came that nobody sent.
    pub(crate) strangers: usize,
    /// The lowest number that is missing or doubled.
    pub(crate) example: Option<usize>,
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            missing,
            doubled,
            strangers,
            example,
        } = self;
        write!(
            formatter,
            "{missing} messages missing, {doubled} doubled, {strangers} never sent"
        )?;
        example.map_or(Ok(()), |number| {
            write!(formatter, " (the first is number {number})")
        })
    }
}

impl Tally {
    /// Expects the messages 0 to `expected` - 1.
    pub(crate) fn new(expected: usize) -> Self {
        Self {
            seen: vec![0; expected],
            distinct: 0,
            strangers: 0,
        }
    }

    /// Counts one sighting; true if it is the first of an expected message.
    pub(crate) fn note(&mut self, number: usize) -> bool {
        let Some(count) = self.seen.get_mut(number) else {
            self.strangers += 1;
            return false;
        };
        let first = *count == 0;
        *count = count.saturating_add(1);
        self.distinct += usize::from(first);
        first
    }

    /// Whether every expected message has been seen at least once.
    pub(crate) fn complete(&self) -> bool {
        self.distinct == self.seen.len()
    }

    /// Nothing, if every expected message was seen exactly once and nothing else was.
    pub(crate) fn verdict(&self) -> Result<(), Discrepancy> {
        let missing = self.seen.len() - self.distinct;
        let doubled = self.seen.iter().filter(|count| **count > 1).count();
        if missing == 0 && doubled == 0 && self.strangers == 0 {
            return Ok(());
        }
        let example = self.seen.iter().position(|count| *count != 1);
        Err(Discrepancy {
            missing,
            doubled,
            strangers: self.strangers,
            example,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expected: usize, seen: &[usize]) -> Result<(), Discrepancy> {
        let mut tally = Tally::new(expected);
        for number in seen {
            tally.note(*number);
        }
        tally.verdict()
    }

    #[test]
    fn every_message_once_in_any_order_is_right() {
        assert_eq!(verdict(3, &[2, 0, 1]), Ok(()));
        assert_eq!(verdict(0, &[]), Ok(()));
    }

    #[test]
    fn lost_doubled_and_invented_messages_are_told_apart() {
        let wrong = |missing, doubled, strangers, example| {
            Err(Discrepancy {
                missing,
                doubled,
                strangers,
                example,
            })
        };
        assert_eq!(verdict(3, &[0, 2]), wrong(1, 0, 0, Some(1)));
        assert_eq!(verdict(3, &[0, 1, 2, 1, 1]), wrong(0, 1, 0, Some(1)));
        assert_eq!(verdict(2, &[0, 1, 2]), wrong(0, 0, 1, None));
        assert_eq!(verdict(2, &[1, 1, usize::MAX]), wrong(1, 1, 1, Some(0)));
    }

    #[test]
    fn a_message_seen_hundreds_of_times_stays_doubled() {
        assert!(verdict(1, &[0; 256]).is_err());
        assert!(verdict(1, &[0; 257]).is_err());
    }

    #[test]
    fn completeness_counts_messages_and_not_sightings() {
        let mut tally = Tally::new(2);
        assert!(tally.note(0));
        assert!(!tally.note(0));
        assert!(!tally.complete());
        assert!(tally.note(1));
        assert!(tally.complete());
    }

    #[test]
    fn markers_are_found_in_the_middle_of_anything() {
        let (marker, other) = (Marker::new("a1"), Marker::new("b2"));
        let text = format!(
            "{{\"body\":\"{}\"}},{},{}",
            marker.text(7),
            other.text(8),
            marker.text(12_345_678)
        );
        assert_eq!(marker.find(text.as_bytes()).collect::<Vec<_>>(), [7, 12_345_678]);
        assert_eq!(marker.find(b"marker-a1-123").collect::<Vec<_>>(), [usize::MAX]);
        assert_eq!(
            marker.find(b"marker-a1-1234abcd").collect::<Vec<_>>(),
            [usize::MAX]
        );
    }
}
