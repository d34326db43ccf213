//! Peers: how one homeserver reaches another over QUIC and keeps its log flowing (`spec/federation.md`).
//!
//! This crate knows nothing of rooms, users or SQL. It moves what the server hands it, and asks the server through one
//! trait for everything it cannot know.
