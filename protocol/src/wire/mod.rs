//! Frames and messages between homeservers (`spec/federation.md`): bytes here, meaning elsewhere.
//!
//! A frame is a `u32` length in network order and one CBOR array of a name and a body. Everything is
//! decoded in two steps: [`cbor_validation`] walks the bytes once and refuses what is deep, endless, tagged or
//! cut short, then the body is read into types whose lists and texts have limits. What comes out
//! is bounded and typed; no length that a stranger claims is ever allocated.
//!
//! - [`frame`]: bytes of frames, and why some bytes are none.
//! - [`message`]: what travels on the log stream: `hello`, `ready`, `log`, `stored`, `extremities`, `record`.
//! - [`log`]: the items of a `log` frame.
//! - [`request`]: what one server asks of another, and [`answer`] what it is told.
//! - [`datagram`]: what may be lost: typing and presence.
//! - [`close`]: why a connection ends.
//! - [`nodes`]: what the nodes of one homeserver say to each other.

pub mod answer;
pub mod bounded;
pub mod cbor_validation;
pub mod close;
pub mod datagram;
pub mod frame;
pub mod limits;
pub mod log;
pub mod message;
mod named;
pub mod nodes;
pub mod request;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Part, Refused, RefusedCode};
pub use bounded::{Json, Octets, Text};
pub use close::CloseCode;
pub use datagram::Datagram;
pub use frame::{FrameError, decode, encode, encode_datagram, frame_length};
pub use log::{Cursor, LogItem};
pub use message::Message;
pub use named::{Body, Named};
pub use request::{Call, Request};
