//! What clients, supervisors and other homeservers ask first.

pub(super) mod capabilities;
pub mod health;
pub(super) mod nodes;
pub(super) mod versions;
pub(super) mod well_known;
