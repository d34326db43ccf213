//! Sync (client-server API, "Syncing"; `spec/websocket-sync.md`).

pub(super) mod long_poll;
pub mod websocket;
pub mod websocket_frames;
