//! Accounts and sessions (client-server API, "Client authentication", "Account management", "Device management", "Profiles", "User Directory").

pub(super) mod account;
pub(super) mod devices;
pub(super) mod login;
pub(super) mod openid;
pub(super) mod profile;
pub(super) mod register;
pub(super) mod session;
pub(super) mod user_directory;
