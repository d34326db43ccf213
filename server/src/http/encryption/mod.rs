//! End-to-end encryption (client-server API, "End-to-End Encryption", "Send-to-Device messaging").

pub(super) mod key_backups;
pub(super) mod keys;
pub(super) mod to_device;
