//! EDUs: what crosses servers beside events.
//!
//! - [`to_device`], [`device_lists`], [`receipts`]: by the log, stored with it. Device lists and keys are also requested.
//! - [`typing_and_presence`]: by datagram, in memory only.

pub(super) mod device_lists;
pub(super) mod receipts;
pub(super) mod to_device;
pub(super) mod typing_and_presence;
