//! Events that this server lacks, requested from other servers.
//!
//! - [`event_fetcher`]: events on request, and whom to ask. [`remote_state`]: the state at an event.
//!   [`unresponsive`]: servers that did not answer lately.
//! - [`missing_events`]: gaps in the event graph before what arrives. [`gap_scheduler`]: which gap of a room is next.
//! - [`history`]: gaps in timelines, filled a page at a time. [`pages`]: pages under way.
//! - [`scheduler`]: full replicas, fetched in the background. [`federated_history`]: history as clients read it.

pub(super) mod event_fetcher;
pub(super) mod federated_history;
pub(super) mod gap_scheduler;
pub(super) mod history;
pub(super) mod missing_events;
pub(super) mod pages;
pub(super) mod remote_state;
pub(super) mod scheduler;
pub(super) mod unresponsive;
