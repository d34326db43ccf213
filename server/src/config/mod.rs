//! The configuration: one TOML file, every key also a `MARU_…` variable, the main ones also flags.
//!
//! [`keys`](self) lists every key once; [`load`] gathers values and refuses what is unknown or wrong;
//! [`reference`] writes the keys out for people. Design section 11.

mod keys;
mod load;
mod peers;
pub mod reference;
mod section;
mod setting;
mod values;

pub use crate::limits::{Rate, Rates};
pub use keys::{Config, Federation, Limits, Log, Media, Presence, Tls};
pub use load::{ConfigError, Loaded, Source, Sources, load};
pub use peers::{ConfiguredPeer, ConfiguredPeers, PeerAddress};
pub use section::{Key, Node, Value};
pub use setting::Setting;
pub use values::{
    AddressRange, BaseUrl, Database, LogFormat, LogLevel, MediaStorage, NatsAddress, Registration, Secret,
};
