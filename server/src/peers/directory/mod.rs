//! Look-ups on other servers for clients of this one: public rooms, spaces, profiles, media.

pub(super) mod profiles;
pub(super) mod public_rooms;
pub(super) mod remote_media;
pub(super) mod space_hierarchy;
