//! Stories of people who use the server, on both engines.

mod chat;
mod devices;
mod limits;
mod redaction;
mod sync;
mod websocket;
