//! Accounts and what belongs to them: users, devices, sessions, profiles, account data.

pub mod account_data;
pub mod credentials;
pub mod devices;
pub(super) mod filters;
pub mod member_profiles;
pub mod profiles;
pub mod registration_tokens;
pub mod sessions;
pub mod user_directory;
pub mod users;
