//! The client API: HTTP in, typed domain calls, HTTP out. Handlers extract, make one domain call and convert; files
//! are named as the Matrix specification names things.

mod account;
mod account_data;
mod aliases;
mod asker;
pub mod call;
mod capabilities;
pub mod client_address;
mod completed;
mod connection;
mod devices;
mod directory;
pub mod error;
mod filters;
pub mod health;
mod interactive_auth;
mod keys;
pub mod listener;
mod login;
mod media;
mod presence;
mod profile;
mod push_rules;
mod range;
mod receipts;
mod register;
mod relations;
pub mod request_log;
mod rest;
mod room_creation;
mod room_history;
mod room_membership;
mod room_previews;
mod room_sending;
mod room_state;
mod room_upgrade;
pub mod router;
mod session;
mod spending;
mod stall;
mod sync;
pub mod tls;
mod to_device;
mod typing;
mod upload;
mod user_directory;
mod versions;
pub mod websocket;
pub mod websocket_frames;
mod well_known;
mod written;

use std::sync::Arc;

use axum::Router;
use axum::middleware;

use self::router::{Routes, Served};
use crate::server::Server;

/// The whole client API.
pub fn router(server: Arc<Server>) -> Router {
    routes()
        .into_router()
        .fallback(router::unknown_path)
        .method_not_allowed_fallback(router::unknown_method)
        .layer(middleware::from_fn(router::cross_origin))
        .layer(middleware::from_fn(request_log::observe))
        .with_state(server)
}

/// Every method and path that the client API answers.
#[must_use]
pub fn endpoints() -> Vec<Served> {
    routes().into_served()
}

/// One chapter after the other, as the specification has them.
fn routes() -> Routes {
    Routes::new()
        .merge(versions::routes())
        .merge(register::routes())
        .merge(login::routes())
        .merge(room_creation::routes())
        .merge(room_membership::routes())
        .merge(room_sending::routes())
        .merge(sync::routes())
        .merge(websocket::routes())
        .merge(session::routes())
        .merge(account::routes())
        .merge(devices::routes())
        .merge(profile::routes())
        .merge(user_directory::routes())
        .merge(room_state::routes())
        .merge(room_history::routes())
        .merge(relations::routes())
        .merge(aliases::routes())
        .merge(directory::routes())
        .merge(room_upgrade::routes())
        .merge(room_previews::routes())
        .merge(account_data::routes())
        .merge(filters::routes())
        .merge(push_rules::routes())
        .merge(receipts::routes())
        .merge(typing::routes())
        .merge(presence::routes())
        .merge(keys::routes())
        .merge(to_device::routes())
        .merge(media::routes())
        .merge(capabilities::routes())
        .merge(well_known::routes())
        .merge(health::routes())
}
