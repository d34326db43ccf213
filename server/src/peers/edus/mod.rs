//! What crosses servers beside room events: typing, presence, receipts, device lists, to-device messages.

pub(super) mod device_lists;
pub(super) mod receipts;
pub(super) mod to_device;
pub(super) mod typing_and_presence;
