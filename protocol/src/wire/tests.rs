//! Limits, refusals and what must hold for any bytes. Examples of every frame are in `protocol/tests/vectors`.

use proptest::prelude::*;
use ruma::{OwnedEventId, OwnedRoomId, owned_event_id, owned_room_id, owned_user_id};
use serde::Serialize;

use super::{
    limits::*,
    log::{DeviceList, Event, Receipt, Skipped, ToDevice},
    message::{Extremities, Log, RoomExtremities, Stored},
    *,
};

fn reads(message: &Message) -> Result<Message, FrameError> {
    decode(&encode(message).unwrap()[frame::LENGTH_BYTES..])
}

/// Reads a log frame whose one item has this name and body.
fn reads_item(name: &str, body: impl Serialize) -> Result<Message, FrameError> {
    #[derive(Serialize)]
    struct Raw<T> {
        number: u64,
        items: [T; 1],
        cursor: Cursor,
    }
    let log = Raw {
        number: 1,
        items: [(name, body)],
        cursor: Cursor::default(),
    };
    decode(&minicbor_serde::to_vec(("log", log)).unwrap())
}

#[derive(Serialize)]
struct RawUser<'a> {
    user_id: &'a str,
}

fn room() -> OwnedRoomId {
    owned_room_id!("!r:a.example")
}

fn event_ids(count: usize) -> Vec<OwnedEventId> {
    vec![owned_event_id!("$e"); count]
}

fn is_malformed<T: std::fmt::Debug>(result: Result<T, FrameError>) -> bool {
    matches!(result, Err(FrameError::Malformed(_)))
}

#[test]
fn lists_are_bounded() {
    let rooms = |count: usize, ids: usize| {
        let room = RoomExtremities {
            room_id: room(),
            extremities: event_ids(ids),
        };
        Message::Extremities(Extremities {
            rooms: vec![room; count],
        })
    };
    let full = rooms(MAX_EXTREMITY_ROOMS, 1);
    assert_eq!(reads(&full), Ok(full));
    let full = rooms(1, MAX_EXTREMITIES);
    assert_eq!(reads(&full), Ok(full));
    assert!(is_malformed(reads(&rooms(MAX_EXTREMITY_ROOMS + 1, 1))));
    assert!(is_malformed(reads(&rooms(1, MAX_EXTREMITIES + 1))));

    let item = LogItem::DeviceList(DeviceList {
        user_id: owned_user_id!("@a:b"),
    });
    let log = |count| {
        Message::Log(Log {
            number: 1,
            items: vec![item.clone(); count],
            cursor: Cursor::default(),
        })
    };
    assert!(reads(&log(MAX_LOG_ITEMS)).is_ok());
    assert!(is_malformed(reads(&log(MAX_LOG_ITEMS + 1))));
}

#[test]
fn texts_and_ids_are_bounded_and_checked() {
    let user = |length: usize| format!("@{}:b", "a".repeat(length - 3));
    assert!(reads_item("device_list", RawUser { user_id: &user(255) }).is_ok());
    for bad in [&*user(256), "a:b", "@a", "", "@a:b\0"] {
        assert!(
            is_malformed(reads_item("device_list", RawUser { user_id: bad })),
            "{bad}"
        );
    }

    let to_device = |device: usize, content: usize| {
        Message::Log(Log {
            number: 1,
            items: vec![LogItem::ToDevice(ToDevice {
                message_id: Text::new("1").unwrap(),
                sender: owned_user_id!("@a:b"),
                user_id: owned_user_id!("@c:d"),
                device_id: "D".repeat(device).into(),
                event_type: Text::new("m.test").unwrap(),
                content: Json::from(&*"x".repeat(content)),
            })],
            cursor: Cursor::default(),
        })
    };
    assert!(reads(&to_device(255, MAX_JSON_BYTES)).is_ok());
    assert!(is_malformed(reads(&to_device(256, 2))));
    assert!(is_malformed(reads(&to_device(1, MAX_JSON_BYTES + 1))));
}

#[test]
fn an_item_of_another_kind_or_without_its_fields_is_refused() {
    let user = || RawUser { user_id: "@a:b" };
    assert!(reads_item("device_list", user()).is_ok());
    let unknown = reads_item("dance", user());
    assert!(is_malformed(unknown.clone()));
    assert!(unknown.unwrap_err().to_string().contains("dance"));
    assert!(is_malformed(reads_item("receipt", user())));
    assert!(is_malformed(reads_item("device_list", [1, 2])));
}

#[test]
fn fields_that_are_not_known_are_skipped() {
    // [ "stored", { "more": [ { "a": null } ], "number": 7 } ]
    let frame = b"\x82\x66stored\xa2\x64more\x81\xa1\x61a\xf6\x66number\x07";
    assert_eq!(decode(frame), Ok(Message::Stored(Stored { number: 7 })));
}

#[test]
fn claimed_lengths_are_refused_before_anything_is_read() {
    let limit = MAX_HELLO_BYTES;
    let length = u32::try_from(limit).unwrap();
    assert_eq!(frame_length(length.to_be_bytes(), limit), Ok(limit));
    assert_eq!(
        frame_length((length + 1).to_be_bytes(), limit),
        Err(FrameError::TooLong {
            length: limit + 1,
            limit
        })
    );
    assert!(frame_length([255; 4], usize::MAX).is_err());
}

#[test]
fn a_reason_is_cut_between_characters() {
    let reason = Refused::new(RefusedCode::Invalid, &"é".repeat(MAX_TEXT_BYTES)).reason;
    assert_eq!(reason.len(), MAX_TEXT_BYTES);
    assert!(Text::<3>::cut("éé").len() == 2 && Text::<3>::new("éé").is_none());
}

#[test]
fn a_code_of_a_newer_peer_reads_as_unavailable() {
    #[derive(Serialize)]
    struct Raw {
        code: &'static str,
        reason: &'static str,
    }
    let frame = minicbor_serde::to_vec((
        "refused",
        Raw {
            code: "moon_phase",
            reason: "",
        },
    ))
    .unwrap();
    let answer: Answer<request::Nothing> = decode(&frame).unwrap();
    assert_eq!(
        answer,
        Answer::Refused(Refused::new(RefusedCode::Unavailable, ""))
    );
}

#[test]
fn close_codes_have_one_number_and_one_name_each() {
    for (at, code) in CloseCode::ALL.into_iter().enumerate() {
        assert_eq!(usize::try_from(code.number()), Ok(at));
        assert_eq!(CloseCode::from_number(code.number().into()), Some(code));
        let same_name = CloseCode::ALL.iter().filter(|other| other.name() == code.name());
        assert_eq!(same_name.count(), 1);
    }
    assert_eq!(CloseCode::from_number(u64::MAX), None);
}

#[test]
fn a_datagram_fits_one_packet() {
    let presence = |length: usize| {
        Datagram::Presence(datagram::Presence {
            user_id: owned_user_id!("@a:b"),
            presence: datagram::PresenceState::Online,
            last_active_ago_ms: None,
            currently_active: true,
            status_msg: Text::new(&"x".repeat(length)),
            lifetime_ms: 1,
        })
    };
    assert!(encode_datagram(&presence(700)).is_ok());
    assert!(encode_datagram(&presence(1024)).is_err());
}

fn item() -> impl Strategy<Value = LogItem> {
    let words = || "[a-z]{0,200}";
    prop_oneof![
        ".{0,300}".prop_map(|json| LogItem::Event(Event {
            room_id: room(),
            json: Json::from(&*json)
        })),
        (0..MAX_EXTREMITIES).prop_map(|ids| LogItem::Skipped(Skipped {
            room_id: room(),
            extremities: event_ids(ids)
        })),
        (words(), words(), words(), words()).prop_map(|(id, user, device, content)| {
            LogItem::ToDevice(ToDevice {
                message_id: Text::new(&id).unwrap(),
                sender: format!("@{user}:a.example").try_into().unwrap(),
                user_id: owned_user_id!("@b:b"),
                device_id: device.into(),
                event_type: Text::new("m.dummy").unwrap(),
                content: Json::from(&*content),
            })
        }),
        Just(LogItem::DeviceList(DeviceList {
            user_id: owned_user_id!("@a:b")
        })),
        (any::<bool>(), words(), 0..1u64 << 53).prop_map(|(threaded, thread, ts)| {
            LogItem::Receipt(Receipt {
                room_id: room(),
                user_id: owned_user_id!("@a:b"),
                receipt_type: Text::new("m.read").unwrap(),
                event_id: owned_event_id!("$e"),
                thread: threaded.then(|| Text::new(&thread).unwrap()),
                ts,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back_and_weighs_no_more_than_said(
        items in proptest::collection::vec(item(), 0..20), number in 0..1u64 << 53, cursor: [u8; MAX_CURSOR_BYTES],
    ) {
        let weights: usize = items.iter().map(LogItem::weight).sum();
        let log = Message::Log(Log { number, items, cursor: Cursor::new(&cursor).unwrap() });
        let bytes = encode(&log).unwrap();
        prop_assert!(bytes.len() <= weights + 256);
        prop_assert_eq!(reads(&log), Ok(log));
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_reads_writes(
        items in proptest::collection::vec(item(), 0..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let log = Message::Log(Log { number: 1, items, cursor: Cursor::default() });
        let mut bytes = encode(&log).unwrap().split_off(frame::LENGTH_BYTES);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(message) = decode::<Message>(&bytes) {
            prop_assert_eq!(reads(&message), Ok(message));
        }
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Answer<request::membership::Admission>>(&bytes);
        let _ = decode::<Datagram>(&bytes);
    }
}
