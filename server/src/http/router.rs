//! Routes: every endpoint is registered under all the paths that its request type names.

use std::sync::Arc;

use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use axum::{Extension, Router};
use http::{HeaderValue, Method, StatusCode, header};
use ruma::api::Metadata;
use ruma::api::path_builder::PathBuilder;

use super::codec::error::plain;
use crate::limits::spending::{self, Spending};
use crate::server::Server;

/// A method and a path that this server answers.
#[derive(Clone, Debug)]
pub struct Served {
    /// The method.
    pub method: Method,
    /// The path, with its variables in braces.
    pub path: &'static str,
    /// What it spends; every endpoint that writes spends something.
    pub spends: Option<&'static Spending>,
}

/// Routes with the server as their state, and a list of what they serve.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router<Arc<Server>>,
    served: Vec<Served>,
}

impl Routes {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a method of one path.
    #[must_use]
    pub fn serve<T: 'static>(
        mut self,
        method: Method,
        path: &'static str,
        handler: impl Handler<T, Arc<Server>>,
    ) -> Self {
        let Ok(filter) = MethodFilter::try_from(method.clone()) else {
            return self;
        };
        let spends = spending::of_endpoint(method.as_str(), path);
        let mut methods = on(filter, handler);
        if let Some(spends) = spends {
            // Spent by the extractors, which know who calls: `super::codec::spending`.
            methods = methods.route_layer(Extension(spends));
        }
        self.router = self.router.route(path, methods);
        self.served.push(Served { method, path, spends });
        self
    }

    /// These routes and others.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.served.extend(other.served);
        self
    }

    /// The router.
    pub(super) fn into_router(self) -> Router<Arc<Server>> {
        self.router
    }

    /// What they serve.
    pub(super) fn into_served(self) -> Vec<Served> {
        self.served
    }
}

/// Registers typed endpoints.
pub trait Endpoints {
    /// Serves endpoint `R` with `handler`, under all its paths.
    #[must_use]
    fn endpoint<R: Metadata, T: 'static>(self, handler: impl Handler<T, Arc<Server>>) -> Self;
}

impl Endpoints for Routes {
    fn endpoint<R: Metadata, T: 'static>(self, handler: impl Handler<T, Arc<Server>>) -> Self {
        let paths = R::PATH_BUILDER;
        let paths = paths.all_paths();
        paths.fold(self, |routes, path| {
            routes.serve(R::METHOD, path, handler.clone())
        })
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
