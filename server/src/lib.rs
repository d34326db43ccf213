//! The homeserver: rooms, accounts, sync, storage and the client API in one program.

pub mod config;
pub mod data_folder;
pub mod http;
pub mod observe;
