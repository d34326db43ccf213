//! Parts of a content (RFC 9110, section 14): what a player asks for that seeks in a video. One range at a time; a request
//! for several is answered with the whole, as the standard allows.

use std::ops::Range;

use http::{HeaderMap, header};

/// What a request asks for of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum Part {
    /// All of it.
    Whole,
    /// These bytes, at least one.
    Bytes(Range<u64>),
    /// Bytes that it does not have.
    Unsatisfiable,
}

impl Part {
    /// Reads the headers of a request for a content of `size` bytes whose version is `etag`. A range that cannot be read,
    /// or is for another version, asks for the whole.
    pub(in crate::http) fn asked(headers: &HeaderMap, size: u64, etag: &str) -> Self {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let Some(range) = text(header::RANGE) else {
            return Self::Whole;
        };
        // Dates match nothing: no content says when it was last changed.
        if text(header::IF_RANGE).is_some_and(|version| version != etag) {
            return Self::Whole;
        }
        parse(range, size).unwrap_or(Self::Whole)
    }
}

/// Reads `bytes=first-last`, `bytes=first-` or `bytes=-count`; none for anything else.
fn parse(range: &str, size: u64) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More than fits is more than any content has.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let bytes = match (first, last) {
        ("", count) => size.saturating_sub(number(count)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(match bytes.start < bytes.end {
        true => Part::Bytes(bytes),
        false => Part::Unsatisfiable,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use crate::http::codec::range::*;

    fn asked(range: &str, size: u64) -> Part {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        Part::asked(&headers, size, "\"a\"")
    }

    #[test]
    fn one_range_of_bytes_is_read() {
        assert_eq!(asked("bytes=0-0", 10), Part::Bytes(0..1));
        assert_eq!(asked("bytes=2-5", 10), Part::Bytes(2..6));
        assert_eq!(asked("Bytes=2-", 10), Part::Bytes(2..10));
        assert_eq!(asked("bytes=2-99999999999999999999999", 10), Part::Bytes(2..10));
        assert_eq!(asked("bytes=-3", 10), Part::Bytes(7..10));
        assert_eq!(asked("bytes=-30", 10), Part::Bytes(0..10));
    }

    #[test]
    fn what_is_not_there_is_told() {
        for range in [
            "bytes=10-",
            "bytes=10-11",
            "bytes=-0",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(asked(range, 10), Part::Unsatisfiable, "{range}");
        }
        assert_eq!(asked("bytes=0-", 0), Part::Unsatisfiable);
    }

    #[test]
    fn what_cannot_be_read_asks_for_the_whole() {
        for range in [
            "bytes=5-2",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes 1-2",
            "",
        ] {
            assert_eq!(asked(range, 10), Part::Whole, "{range}");
        }
        assert_eq!(Part::asked(&HeaderMap::new(), 10, "\"a\""), Part::Whole);
    }

    #[test]
    fn a_range_may_be_for_one_version() {
        let of_version = |version: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-"));
            headers.insert(header::IF_RANGE, HeaderValue::from_static(version));
            Part::asked(&headers, 10, "\"a\"")
        };
        assert_eq!(of_version("\"a\""), Part::Bytes(1..10));
        for other in ["\"b\"", "W/\"a\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(of_version(other), Part::Whole, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_range_leaves_the_content(range in "(bytes=)?[0-9,-]{0,30}", size in 0_u64..1_000) {
            if let Part::Bytes(bytes) = asked(&range, size) {
                prop_assert!(bytes.start < bytes.end && bytes.end <= size);
            }
        }
    }
}
