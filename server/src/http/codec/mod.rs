//! From bytes to typed requests and back: extractors, errors, answers that are JSON already.

pub(super) mod completed_body;
pub mod error;
pub mod extractors;
pub(super) mod interactive_auth;
pub(super) mod masquerade;
pub(super) mod optional_auth;
pub(super) mod range;
pub(super) mod raw_json;
pub mod request_log;
pub mod spending;
pub(super) mod streamed_body;
