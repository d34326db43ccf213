//! Events that this server lacks, fetched from peers: gaps, older history, remote state.

pub(super) mod federated_history;
pub(super) mod gap_scheduler;
pub(super) mod history;
pub(super) mod missing_events;
pub(super) mod pages;
pub(super) mod remote_state;
pub(super) mod scheduler;
pub(super) mod unresponsive;
