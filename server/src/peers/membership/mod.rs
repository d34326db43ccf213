//! Users coming into rooms and leaving them through other servers.

pub(super) mod invites;
pub(super) mod make_membership;
pub(super) mod remote_join;
pub(super) mod room_resolution;
