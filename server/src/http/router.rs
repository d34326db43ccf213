//! Routes: every endpoint is registered under all the paths that its request type names.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::{HeaderValue, Method, StatusCode, header};
use ruma::api::Metadata;
use ruma::api::path_builder::PathBuilder;

use super::error::plain;
use crate::server::Server;

/// The router of the client API, with the server as its state.
pub type Routes = Router<Arc<Server>>;

/// Registers typed endpoints.
pub trait Endpoints {
    /// Serves endpoint `R` with `handler`, under all its paths.
    #[must_use]
    fn endpoint<R: Metadata, T: 'static>(self, handler: impl Handler<T, Arc<Server>>) -> Self;
}

impl Endpoints for Routes {
    fn endpoint<R: Metadata, T: 'static>(mut self, handler: impl Handler<T, Arc<Server>>) -> Self {
        let Ok(method) = MethodFilter::try_from(R::METHOD) else {
            return self;
        };
        for path in R::PATH_BUILDER.all_paths() {
            let handlers: MethodRouter<Arc<Server>> = on(method, handler.clone());
            self = self.route(path, handlers);
        }
        self
    }
}

/// What every path answers that no endpoint serves.
pub async fn unknown_path() -> Response {
    plain(
        StatusCode::NOT_FOUND,
        "M_UNRECOGNIZED",
        "this server has no such endpoint",
    )
}

/// What a known path answers to a method that it does not serve.
pub async fn unknown_method() -> Response {
    plain(
        StatusCode::METHOD_NOT_ALLOWED,
        "M_UNRECOGNIZED",
        "this endpoint does not know this method",
    )
}

/// Cross-origin rules: any origin may call, and preflight questions are answered without a token
/// (client-server API, "Web browser clients").
pub async fn cross_origin(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    let mut response = if preflight {
        Response::default()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}
