//! Stories of people who use the server, on both engines.

mod chat;
mod credentials;
mod devices;
mod echo;
mod filtered;
mod lazy_members;
mod leaving;
mod limits;
mod newcomers;
mod redaction;
mod sync;
mod websocket;
