//! What other servers send by their logs: PDUs and EDUs, from receipt to ingest.
//!
//! - [`log_receiver`]: a page of a log, stored in one commit. [`pdu_precheck`]: checks before that. [`verify`]: form,
//!   signature and hash of an event.
//! - [`inbox`]: rows that wait, room by room. [`inbox_worker`]: the tasks that ingest them. [`ingestor`]: the way into a room.
//! - [`outside_events`]: events for rooms that this server is not in. [`departed_servers`]: servers that have left a room
//!   without knowing it.
//! - [`inbox_quota`]: bounds for each peer. [`throttle`]: pauses for peers whose events are dropped. [`drop_counters`]: why
//!   events are dropped.

pub(super) mod departed_servers;
pub(super) mod drop_counters;
pub(super) mod inbox;
pub(super) mod inbox_quota;
pub(super) mod inbox_worker;
pub(super) mod ingestor;
pub(super) mod log_receiver;
pub(super) mod outside_events;
pub(super) mod pdu_precheck;
pub(super) mod throttle;
pub(super) mod verify;
