//! Frames of other servers.

use std::fmt::Debug;

use maru_protocol::wire::{
    Answer, Datagram, LogItem, Message, Named, Request, decode, encode,
    frame::LENGTH_BYTES,
    limits::MAX_LOG_ITEMS,
    request::{Nothing, devices::DeviceLists, directory::Space, membership::Admission, membership::Template},
};

/// A byte that says what is expected, then a frame without its length: what reads is within its limits, and
/// reads the same once it is written again.
pub fn frames(input: &[u8]) {
    let Some((kind, frame)) = input.split_first() else {
        return;
    };
    match kind {
        b'm' => message(frame),
        b'r' => reads_the_same::<Request>(frame),
        b'd' => reads_the_same::<Datagram>(frame),
        b'j' => reads_the_same::<Answer<Template>>(frame),
        b's' => reads_the_same::<Answer<Admission>>(frame),
        b'k' => reads_the_same::<Answer<DeviceLists>>(frame),
        b'h' => reads_the_same::<Answer<Space>>(frame),
        _ => reads_the_same::<Answer<Nothing>>(frame),
    }
}

fn message(frame: &[u8]) {
    reads_the_same::<Message>(frame);
    if let Ok(Message::Log(log)) = decode(frame) {
        assert!(
            log.items.len() <= MAX_LOG_ITEMS,
            "more items than a frame may have"
        );
        let weight: usize = log.items.iter().map(LogItem::weight).sum();
        let written = encode(&Message::Log(log)).map(|bytes| bytes.len());
        assert!(
            written.is_ok_and(|bytes| bytes <= weight + 256),
            "heavier than it says"
        );
    }
}

fn reads_the_same<T: Named + PartialEq + Debug>(frame: &[u8]) {
    let Ok(read) = decode::<T>(frame) else {
        return;
    };
    let written = encode(&read).ok();
    let again = written
        .as_deref()
        .and_then(|bytes| bytes.get(LENGTH_BYTES..))
        .map(decode);
    assert_eq!(again, Some(Ok(read)), "a frame changes when it is written");
}
