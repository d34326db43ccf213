//! Identity of servers: names, keys, signed records, addresses.
//!
//! - [`known_servers`]: the registry of other servers that the rest of the folder asks.
//! - [`known_servers_mirror`]: what other nodes have learnt of them.
//! - [`keyring`]: records and signing keys, by which signatures are verified. [`refused_keys`]: keys that were turned down.
//! - [`well_known`]: root keys that domains publish on the web. [`address_book`]: addresses to dial.
//! - [`sharing_servers`]: servers in a room with this one. [`own_record`]: the record of this server itself.

pub(super) mod address_book;
pub(super) mod keyring;
pub(super) mod known_servers;
pub(super) mod known_servers_mirror;
pub(super) mod own_record;
pub(super) mod refused_keys;
pub(super) mod sharing_servers;
pub(super) mod well_known;
