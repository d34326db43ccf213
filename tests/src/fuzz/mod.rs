//! What must hold for any bytes that a stranger sends.
//!
//! Each function takes one input and panics when a promise is broken. The fuzz targets under `tests/fuzz`
//! feed them for hours; the test `fuzz_smoke` feeds them the seeds and a few thousand mutations of those in
//! every run of the tests, so that a target can neither rot nor be forgotten.

mod event_json;
mod frames;
mod records;
mod requests;
mod sessions;
mod tokens;
mod websocket_frames;

pub use event_json::event_json;
pub use frames::frames;
pub use records::records;
pub use requests::{Known, requests};
pub use sessions::sessions;
pub use tokens::tokens;
pub use websocket_frames::websocket_frames;

/// A function under fuzzing.
#[derive(Debug)]
pub struct Target {
    /// Its file in `tests/fuzz/fuzz_targets` and its folder in `tests/fuzz/seeds`.
    pub name: &'static str,
    /// Takes one input; panics when a promise is broken.
    pub run: fn(&[u8]),
    /// How many mutations of each seed the smoke test affords.
    pub mutations: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "event_json",
        run: event_json,
        mutations: 400,
    },
    Target {
        name: "frames",
        run: frames,
        mutations: 200,
    },
    Target {
        name: "records",
        run: records,
        mutations: 100,
    },
    Target {
        name: "requests",
        run: requests,
        mutations: 40,
    },
    Target {
        name: "sessions",
        run: sessions,
        mutations: 400,
    },
    Target {
        name: "tokens",
        run: tokens,
        mutations: 400,
    },
    Target {
        name: "websocket_frames",
        run: websocket_frames,
        mutations: 1000,
    },
];
