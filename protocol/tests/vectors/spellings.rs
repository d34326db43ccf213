//! The part of `frames.json` on frames of the log stream that Maru does not write: those that it reads all the same, and
//! those that end the connection.

use maru_protocol::wire::{
    CloseCode, FrameError, Message, decode, encode, frame::frame_length, limits::MAX_FRAME_BYTES,
};
use serde_json::{Value, json};

use crate::{hex, value::value};

/// Frames in other spellings than Maru's own, which say what the `value` says.
pub(crate) fn accepted() -> Vec<Value> {
    let cases: [(&str, &[u8]); 5] = [
        (
            "A number need not be in its shortest form.",
            b"\x82\x66stored\xa1\x66number\x1b\x00\x00\x00\x00\x00\x00\x00\x01",
        ),
        (
            "A field that is not known is skipped, whatever it holds: a negative number, keys that are no texts, a key twice.",
            b"\x82\x66stored\xa2\x64more\xa2\x20\x82\xf6\x41\x00\x20\x00\x66number\x01",
        ),
        (
            "Keys stand in any order.",
            b"\x82\x65ready\xa3\x65bytes\x1a\x00\x80\x00\x00\x65items\x01\x68received\xf6",
        ),
        (
            "An optional field that may be null is absent.",
            b"\x82\x65ready\xa2\x65items\x01\x65bytes\x1a\x00\x80\x00\x00",
        ),
        (
            "No items: only the cursor moves.",
            b"\x82\x63log\xa3\x66number\x01\x65items\x80\x66cursor\x40",
        ),
    ];
    let vector = |(why, body): (&str, &[u8])| {
        let message: Message = decode(body).unwrap();
        let frame = [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
        json!({"why": why, "frame": hex(&frame), "value": value(&encode(&message).unwrap()[4..])})
    };
    cases.map(vector).into()
}

/// Frames of a log stream that end the connection. Lengths first, as on the wire.
pub(crate) fn refused() -> Vec<Value> {
    let nested = [&b"\x82\x66stored\xa1\x61x"[..], &[0x81; 14], b"\x80"].concat();
    let name = [&b"\x82\x78\x41"[..], &[b'x'; 65], b"\xa0"].concat();
    let cases: [(&str, &[u8]); 19] = [
        ("A name that is not known.", b"\x82\x65hullo\xa0"),
        (
            "An item that is not known: the frame is.",
            b"\x82\x63log\xa3\x66number\x01\x65items\x81\x82\x65hullo\xa0\x66cursor\x40",
        ),
        (
            "A user id without a server.",
            b"\x82\x63log\xa3\x66number\x01\x65items\x81\x82\x6bdevice_list\xa1\x67user_id\x62@a\x66cursor\x40",
        ),
        (
            "A room id that does not begin like one.",
            b"\x82\x6bextremities\xa1\x65rooms\x81\xa2\x67room_id\x62#a\x6bextremities\x80",
        ),
        (
            "A cursor over 64 bytes.",
            &[&b"\x82\x63log\xa3\x66number\x01\x65items\x80\x66cursor\x58\x41"[..], &[0; 65]].concat(),
        ),
        ("A text where a number is due.", b"\x82\x66stored\xa1\x66number\x611"),
        ("A negative number.", b"\x82\x66stored\xa1\x66number\x20"),
        ("No UTF-8.", b"\x82\x66stored\xa2\x61\xff\x00\x66number\x01"),
        ("Not an array.", b"\xa0"),
        ("An array of three.", b"\x83\x66stored\xa1\x66number\x01\x00"),
        ("A field is missing.", b"\x82\x66stored\xa0"),
        (
            "A field twice.",
            b"\x82\x66stored\xa2\x66number\x01\x66number\x01",
        ),
        (
            "A number over 2^53 - 1.",
            b"\x82\x66stored\xa1\x66number\x1b\x00\x20\x00\x00\x00\x00\x00\x00",
        ),
        (
            "An array without a length.",
            b"\x9f\x66stored\xa1\x66number\x01\xff",
        ),
        ("A tag.", b"\x82\x66stored\xa1\x66number\xc1\x01"),
        ("Ended too early.", b"\x82\x66stored\xa1\x66number"),
        ("Bytes after the end.", b"\x82\x66stored\xa1\x66number\x01\x00"),
        ("Nested too deep, in a field that is not known.", &nested),
        ("A name that is too long.", &name),
    ];
    let mut refused: Vec<_> = cases
        .map(|(why, body)| {
            let frame = [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
            let error = refusal(&frame);
            json!({"why": why, "frame": hex(&frame), "close": error.close_code().name(), "error": error.to_string()})
        })
        .to_vec();
    let long = refusal(&[0, 128, 0, 1]);
    refused.push(json!({
        "why": "A length over 8 MiB, whatever follows.",
        "frame": "00800001",
        "close": CloseCode::LimitExceeded.name(),
        "error": long.to_string(),
    }));
    refused
}

/// Why a frame, its length first, is none.
pub(crate) fn refusal(frame: &[u8]) -> FrameError {
    let (length, body) = frame.split_first_chunk().unwrap();
    match frame_length(*length, MAX_FRAME_BYTES) {
        Ok(length) => {
            assert_eq!(length, body.len());
            decode::<Message>(body).unwrap_err()
        }
        Err(error) => error,
    }
}
