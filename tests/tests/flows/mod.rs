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
mod openid;
mod redaction;
mod reports;
mod sync;
mod websocket;
