//! The outer check of CBOR from strangers: one walk without recursion and without allocation.
//!
//! What passes is one complete item of bounded depth made of integers, byte strings, text strings,
//! arrays, maps, booleans and null, all of definite length. Readers may rely on that.

use thiserror::Error;

use super::limits::MAX_DEPTH;

/// Why bytes are refused before anything is read into types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// The bytes end inside an item.
    #[error("the bytes end too early")]
    CutShort,
    /// Something follows the item.
    #[error("bytes follow the end")]
    Trailing,
    /// Arrays and maps are nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An indefinite length, a tag, a floating-point number, or a simple value but booleans and null.
    #[error("a kind of value that is not used here")]
    NotUsed,
    /// Deterministic encoding only: a number or length is not in its shortest form.
    #[error("a number is not in its shortest form")]
    NotShortest,
    /// Deterministic encoding only: the keys of a map are not text, or not in ascending order of their bytes.
    #[error("the keys of a map are not text in ascending order")]
    KeyOrder,
}

/// How strict the walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Any definite encoding.
    Plain,
    /// Core deterministic encoding (RFC 8949, section 4.2.1) with text keys: one spelling for one value.
    Deterministic,
}

/// Checks that `bytes` are exactly one item of the allowed shape.
///
/// # Errors
/// [`ShapeError`]: the first offence.
pub fn check(bytes: &[u8], strictness: Strictness) -> Result<(), ShapeError> {
    let mut open = [Level::default(); MAX_DEPTH];
    let mut depth = 0;
    let mut rest = Bytes(bytes);
    loop {
        let at = rest.0;
        let head = rest.head(strictness)?;
        let key_due = depth > 0 && open[depth - 1].key_due();
        let left = match head.major {
            0 | 1 | 7 => 0,
            2 | 3 => {
                rest.skip(head.argument)?;
                0
            }
            4 => head.argument,
            _ => head.argument.checked_mul(2).ok_or(ShapeError::CutShort)?,
        };
        if key_due && strictness == Strictness::Deterministic {
            let key = &at[..at.len() - rest.0.len()];
            open[depth - 1].take_key(head.major, key, bytes)?;
        }
        if depth > 0 {
            open[depth - 1].left -= 1;
        }
        if left > 0 {
            let level = open.get_mut(depth).ok_or(ShapeError::TooDeep)?;
            *level = Level {
                left,
                map: head.major == 5,
                last_key: None,
            };
            depth += 1;
        } else if matches!(head.major, 4 | 5) && depth == MAX_DEPTH {
            return Err(ShapeError::TooDeep);
        }
        while depth > 0 && open[depth - 1].left == 0 {
            depth -= 1;
        }
        if depth == 0 {
            return if rest.0.is_empty() {
                Ok(())
            } else {
                Err(ShapeError::Trailing)
            };
        }
    }
}

/// An array or map that is still open.
#[derive(Clone, Copy, Default)]
struct Level {
    left: u64,
    map: bool,
    /// Where the last key stands: offset and length.
    last_key: Option<(usize, usize)>,
}

impl Level {
    fn key_due(&self) -> bool {
        self.map && self.left.is_multiple_of(2)
    }

    fn take_key(&mut self, major: u8, key: &[u8], bytes: &[u8]) -> Result<(), ShapeError> {
        // Both are slices of the same bytes, so the difference of addresses is the offset.
        let offset = key.as_ptr().addr() - bytes.as_ptr().addr();
        let last = self.last_key.and_then(|(at, len)| bytes.get(at..at + len));
        if major != 3 || last.is_some_and(|last| last >= key) {
            return Err(ShapeError::KeyOrder);
        }
        self.last_key = Some((offset, key.len()));
        Ok(())
    }
}

/// The first byte of an item and the number that follows it.
struct Head {
    major: u8,
    argument: u64,
}

/// What is still to be walked.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn head(&mut self, strictness: Strictness) -> Result<Head, ShapeError> {
        let (&first, rest) = self.0.split_first().ok_or(ShapeError::CutShort)?;
        self.0 = rest;
        let (major, info) = (first >> 5, first & 0x1f);
        match (major, info) {
            // False, true and null.
            (7, 20..=22) => return Ok(Head { major, argument: 0 }),
            (6 | 7, _) | (_, 28..) => return Err(ShapeError::NotUsed),
            (_, 0..24) => {
                return Ok(Head {
                    major,
                    argument: info.into(),
                });
            }
            _ => {}
        }
        let width = 1 << (info - 24);
        let (number, rest) = self.0.split_at_checked(width).ok_or(ShapeError::CutShort)?;
        self.0 = rest;
        let argument = number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let least = if width == 1 { 24 } else { 1 << (4 * width) };
        if strictness == Strictness::Deterministic && argument < least {
            return Err(ShapeError::NotShortest);
        }
        Ok(Head { major, argument })
    }

    fn skip(&mut self, length: u64) -> Result<(), ShapeError> {
        let length = usize::try_from(length).map_err(|_| ShapeError::CutShort)?;
        self.0 = self.0.get(length..).ok_or(ShapeError::CutShort)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::cbor_validation::*;
    use proptest::prelude::*;

    fn plain(bytes: &[u8]) -> Result<(), ShapeError> {
        check(bytes, Strictness::Plain)
    }

    fn deterministic(bytes: &[u8]) -> Result<(), ShapeError> {
        check(bytes, Strictness::Deterministic)
    }

    #[test]
    fn one_whole_item_passes() {
        // [ "a", { "b": h'01', "c": null }, -1, true ]
        let item = b"\x84\x61a\xa2\x61b\x41\x01\x61c\xf6\x20\xf5";
        assert_eq!(plain(item), Ok(()));
        assert_eq!(deterministic(item), Ok(()));
        for end in 0..item.len() {
            assert_eq!(plain(&item[..end]), Err(ShapeError::CutShort), "{end}");
        }
        assert_eq!(plain(b"\x01\x01"), Err(ShapeError::Trailing));
    }

    #[test]
    fn what_is_not_used_is_refused() {
        for bad in [
            &b"\x9f\xff"[..], // indefinite array
            b"\xbf\xff",      // indefinite map
            b"\x5f\xff",      // indefinite bytes
            b"\x7f\xff",      // indefinite text
            b"\xc1\x01",      // tag
            b"\xfa\0\0\0\0",  // float
            b"\xf7",          // undefined
            b"\xf8\x20",      // simple value
            b"\xff",          // break
            b"\x1c",          // reserved
        ] {
            assert_eq!(plain(bad), Err(ShapeError::NotUsed), "{bad:?}");
        }
    }

    #[test]
    fn depth_is_bounded_also_by_empty_arrays() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x81; levels - 1];
            bytes.push(0x80);
            bytes
        };
        assert_eq!(plain(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(plain(&nested(MAX_DEPTH + 1)), Err(ShapeError::TooDeep));
        assert_eq!(plain(&nested(1_000_000)), Err(ShapeError::TooDeep));
    }

    #[test]
    fn claimed_lengths_cost_nothing() {
        assert_eq!(
            plain(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(ShapeError::CutShort)
        );
        assert_eq!(
            plain(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(ShapeError::CutShort)
        );
        assert_eq!(
            plain(b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(ShapeError::CutShort)
        );
    }

    #[test]
    fn deterministic_means_one_spelling() {
        for (bytes, offence) in [
            (&b"\x18\x17"[..], ShapeError::NotShortest),
            (b"\x19\x00\xff", ShapeError::NotShortest),
            (b"\x1a\x00\x00\xff\xff", ShapeError::NotShortest),
            (b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", ShapeError::NotShortest),
            (b"\x58\x01a", ShapeError::NotShortest),
            (b"\xa2\x61b\x01\x61a\x01", ShapeError::KeyOrder),
            (b"\xa2\x61a\x01\x61a\x01", ShapeError::KeyOrder),
            // A shorter key stands before a longer one, whatever its letters.
            (b"\xa2\x62aa\x01\x61b\x01", ShapeError::KeyOrder),
            (b"\xa1\x01\x01", ShapeError::KeyOrder),
        ] {
            assert_eq!(deterministic(bytes), Err(offence), "{bytes:?}");
            assert_eq!(plain(bytes), Ok(()), "{bytes:?}");
        }
        assert_eq!(
            deterministic(b"\xa2\x61b\xa2\x61a\x01\x61b\x02\x62aa\x01"),
            Ok(())
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if deterministic(&bytes).is_ok() {
                prop_assert_eq!(plain(&bytes), Ok(()));
            }
        }
    }
}
