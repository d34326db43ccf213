//! Sync (client-server API, "Syncing"; `spec/websocket-sync.md`).

pub(super) mod long_poll;
pub(super) mod sliding;
mod sliding_body;
pub mod websocket;
pub mod websocket_frames;
