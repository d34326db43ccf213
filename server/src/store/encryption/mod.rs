//! End-to-end encryption: device keys, one-time keys, messages to devices.

pub mod device_keys;
pub mod one_time_keys;
pub mod to_device;
