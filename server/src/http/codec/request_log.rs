//! Gives every request an id, counts it, and logs it at debug level: method, route and status, never query strings,
//! headers or bodies, because tokens stand in all of them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderValue, Method, header::HeaderName};
use tracing::Instrument;

use crate::http::transport::client_address::ClientAddress;
use crate::observe::metrics;

/// The header in which an answer tells the id of its request, to be quoted to the admin.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps the handling of a request. Belongs around all routes, with [`axum::middleware::from_fn`].
pub async fn observe(request: Request, next: Next) -> Response {
    let id = next_id();
    let begun = Instant::now();
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request.extensions().get::<ClientAddress>().map(|client| client.0);
    let span = tracing::info_span!("request", id = id.as_str());

    let handled = async {
        let mut response = next.run(request).await;
        let route = route.as_ref().map(MatchedPath::as_str).unwrap_or_default();
        let (status, took) = (response.status().as_u16(), begun.elapsed());
        metrics::REQUESTS.observe(method, route, status, took);
        tracing::debug!(
            method,
            route,
            status,
            ?took,
            client = client.map(tracing::field::display),
            "answered"
        );
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    };
    handled.instrument(span.clone()).await
}

/// An id that no other request has, of this run of the server or, most likely, of any.
fn next_id() -> String {
    static RUN: LazyLock<u32> = LazyLock::new(rand::random);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:08x}-{:x}", *RUN, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The method as a label: strangers can invent methods, and each would be a line of its own in the metrics.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
