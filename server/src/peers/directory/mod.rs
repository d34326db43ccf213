//! Rooms and users of other servers as clients here see them.

pub(super) mod profiles;
pub(super) mod public_rooms;
pub(super) mod space_hierarchy;
