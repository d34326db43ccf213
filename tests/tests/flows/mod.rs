//! Stories of people who use the server, on both engines.

mod chat;
mod sync;
mod websocket;
