//! CBOR as JSON, written without the code under test: byte strings become `{"bytes": "<hex>"}`.

use serde_json::{Map, Value, json};

use crate::hex;

/// The one item that `bytes` are.
pub(crate) fn value(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = item(&mut rest);
    assert!(rest.is_empty());
    value
}

fn item(rest: &mut &[u8]) -> Value {
    let (major, argument) = head(rest);
    match major {
        0 => json!(argument),
        1 => json!(-1 - i64::try_from(argument).unwrap()),
        2 => json!({ "bytes": hex(take(rest, argument)) }),
        3 => json!(std::str::from_utf8(take(rest, argument)).unwrap()),
        4 => (0..argument).map(|_| item(rest)).collect(),
        5 => Value::Object(
            (0..argument)
                .map(|_| (item(rest).as_str().unwrap().to_owned(), item(rest)))
                .collect::<Map<_, _>>(),
        ),
        7 => match argument {
            20 => json!(false),
            21 => json!(true),
            22 => json!(null),
            other => panic!("simple value {other}"),
        },
        other => panic!("major type {other}"),
    }
}

fn head(rest: &mut &[u8]) -> (u8, usize) {
    let first = take(rest, 1)[0];
    let argument = match first & 31 {
        small @ 0..24 => small.into(),
        wide => take(rest, 1 << (wide - 24))
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    (first >> 5, argument)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}
