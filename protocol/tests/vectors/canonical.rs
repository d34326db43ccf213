//! `canonical.json`: texts with their canonical form, and texts that have none.

use maru_protocol::{canonical::canonicalise, limits::MAX_JSON_DEPTH};
use serde_json::{Value, json};

use crate::{entries, vectors};

#[test]
fn json_has_the_canonical_form_that_the_vectors_say() {
    for vector in entries(&vectors("canonical.json", &made())["accepted"]) {
        let canonical = vector["canonical"].as_str().unwrap();
        assert_eq!(canonicalise(canonical, MAX_JSON_DEPTH).unwrap(), canonical);
    }
}

fn made() -> Value {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let accepted = [
        ("Spaces go.", "{ \"a\" : [ 1 ,\n2 ] }".to_owned()),
        (
            "Keys stand in the order of their code points, which is not that of UTF-16.",
            "{\"\u{1f98a}\":1,\"\u{ff5a}\":2,\"가\":3,\"a\":4,\"B\":5,\"\":6}".to_owned(),
        ),
        (
            "Only what must be is escaped, with the short forms where there are any.",
            r#""\u0041\/\u00e9\ud83e\udd8a\u0000\u0008\u0009\u000a\u000c\u000d\u001f\u0022\u005c\u007f\u2028""#.to_owned(),
        ),
        ("The least number.", "-9007199254740991".to_owned()),
        ("The largest number.", "9007199254740991".to_owned()),
        ("An event may be nested so deep.", deep(100)),
    ];
    let refused = [
        ("A number over 2^53 - 1.", "9007199254740992".to_owned()),
        ("A number with a fraction, though it is none.", "1.0".to_owned()),
        ("A number with an exponent.", "1e3".to_owned()),
        ("Zero with a sign.", "-0".to_owned()),
        ("A key twice.", r#"{"a":1,"\u0061":1}"#.to_owned()),
        ("Half of a pair of UTF-16.", r#""\ud83e""#.to_owned()),
        ("Nested too deep.", deep(101)),
        ("Something after the end.", "{}{}".to_owned()),
    ];
    let accepted = accepted.map(|(why, text)| {
        let canonical = canonicalise(&text, MAX_JSON_DEPTH).unwrap();
        json!({"why": why, "text": text, "canonical": canonical})
    });
    let refused = refused.map(|(why, text)| {
        assert!(canonicalise(&text, MAX_JSON_DEPTH).is_err(), "{why}");
        json!({"why": why, "text": text})
    });
    json!({"accepted": accepted, "refused": refused})
}
