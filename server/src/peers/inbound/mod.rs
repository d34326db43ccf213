//! What peers send, from their logs to the rooms: checked, stored, ingested room by room.

pub(super) mod departed_servers;
pub(super) mod drop_counters;
pub(super) mod inbox;
pub(super) mod inbox_quota;
pub(super) mod pdu_precheck;
pub(super) mod throttle;
pub(super) mod verify;
