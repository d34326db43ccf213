//! `spec/federation.md` against the code: it names every code, frame, item, request and datagram.

use std::{fs, path::Path};

use maru_protocol::wire::{CloseCode, Datagram, LogItem, Message, Named, RefusedCode, Request};

#[test]
fn the_page_names_everything_that_travels() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/federation.md");
    let page = fs::read_to_string(path).unwrap();
    for code in CloseCode::ALL {
        assert!(
            page.contains(&format!("| {} | `{}` |", code.number(), code.name())),
            "{code}"
        );
    }
    for name in Message::NAMES {
        assert!(page.contains(&format!("### `{name}`")), "{name}");
    }
    for name in [LogItem::NAMES, Request::NAMES, Datagram::NAMES].concat() {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name}");
    }
    for name in RefusedCode::NAMES {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
