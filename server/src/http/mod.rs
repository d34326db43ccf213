//! The client API: HTTP in, typed domain calls, HTTP out. Handlers extract, make one domain call and convert; files
//! are named as the Matrix specification names things.

mod accounts;
mod appservices;
pub mod codec;
pub mod discovery;
mod encryption;
mod media;
mod moderation;
mod oauth;
mod rooms;
pub mod router;
pub mod syncing;
pub mod transport;
mod user_data;

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
        .layer(middleware::from_fn(codec::request_log::observe))
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
        .merge(discovery::versions::routes())
        .merge(accounts::register::routes())
        .merge(accounts::login::routes())
        .merge(oauth::routes())
        .merge(rooms::creation::routes())
        .merge(rooms::membership::routes())
        .merge(rooms::sending::routes())
        .merge(moderation::reporting::routes())
        .merge(syncing::long_poll::routes())
        .merge(syncing::sliding::routes())
        .merge(syncing::websocket::routes())
        .merge(accounts::session::routes())
        .merge(accounts::openid::routes())
        .merge(accounts::account::routes())
        .merge(accounts::devices::routes())
        .merge(accounts::profile::routes())
        .merge(accounts::user_directory::routes())
        .merge(rooms::state::routes())
        .merge(rooms::history::routes())
        .merge(rooms::relations::routes())
        .merge(rooms::search::routes())
        .merge(rooms::aliases::routes())
        .merge(rooms::directory::routes())
        .merge(rooms::upgrade::routes())
        .merge(rooms::previews::routes())
        .merge(user_data::account_data::routes())
        .merge(user_data::filters::routes())
        .merge(user_data::push_rules::routes())
        .merge(user_data::receipts::routes())
        .merge(user_data::typing::routes())
        .merge(user_data::presence::routes())
        .merge(encryption::key_backups::routes())
        .merge(encryption::keys::routes())
        .merge(encryption::to_device::routes())
        .merge(media::routes())
        .merge(appservices::ping::routes())
        .merge(appservices::third_party::routes())
        .merge(discovery::capabilities::routes())
        .merge(discovery::well_known::routes())
        .merge(discovery::nodes::routes())
        .merge(discovery::health::routes())
}
