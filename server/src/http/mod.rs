//! The client API: HTTP in, typed domain calls, HTTP out. Handlers extract, make one domain call and convert; files
//! are named as the Matrix specification names things.

pub mod call;
pub mod client_address;
mod connection;
pub mod error;
pub mod listener;
mod login;
mod register;
pub mod request_log;
mod room_creation;
mod room_membership;
mod room_sending;
pub mod router;
mod sync;
pub mod tls;
mod versions;

use std::sync::Arc;

use axum::Router;
use axum::middleware;

use crate::server::Server;

/// The whole client API.
pub fn router(server: Arc<Server>) -> Router {
    router::Routes::new()
        .merge(versions::routes())
        .merge(register::routes())
        .merge(login::routes())
        .merge(room_creation::routes())
        .merge(room_membership::routes())
        .merge(room_sending::routes())
        .merge(sync::routes())
        .fallback(router::unknown_path)
        .method_not_allowed_fallback(router::unknown_method)
        .layer(middleware::from_fn(router::cross_origin))
        .with_state(server)
}
