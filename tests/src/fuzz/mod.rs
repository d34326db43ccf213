//! What must hold for any bytes that a stranger sends.
//!
//! Each function takes one input and panics when a promise is broken. The fuzz targets under `tests/fuzz`
//! feed them for hours; the test `fuzz_smoke` feeds them the seeds and a few thousand mutations of those in
//! every run of the tests, so that a target can neither rot nor be forgotten.

mod event_json;
mod tokens;

pub use event_json::event_json;
pub use tokens::tokens;

/// A function under fuzzing.
pub type Target = fn(&[u8]);

/// Every target by the name of its file in `tests/fuzz/fuzz_targets` and its folder in `tests/fuzz/seeds`.
pub const TARGETS: &[(&str, Target)] = &[("event_json", event_json), ("tokens", tokens)];
