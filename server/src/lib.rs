//! The homeserver: rooms, accounts, sync, storage and the client API in one program.

pub mod account_data;
pub mod accounts;
pub mod admin;
pub mod backup;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_folder;
pub mod ephemeral;
pub mod http;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod live;
pub mod media;
pub mod observe;
pub mod peers;
pub mod push;
pub mod receipts;
pub mod refusal;
pub mod rooms;
pub mod server;
pub mod store;
pub mod sync;
pub mod web;
