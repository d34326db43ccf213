//! What supervisors and collectors ask: whether the process lives, whether it can serve, and its metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{Method, StatusCode, header};

use crate::http::router::Routes;
use crate::observe::metrics;
use crate::observe::peers::PeersSample;
use crate::server::Server;

/// `/health` and `/ready`, on the client listener.
pub fn routes() -> Routes {
    Routes::new()
        .serve(Method::GET, "/health", health)
        .serve(Method::GET, "/ready", ready)
}

/// `/metrics`, on a listener of its own.
pub fn metrics_router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(server)
}

/// The process lives. Says nothing of the database: a supervisor must not restart a server because that is away.
async fn health() -> &'static str {
    "alive\n"
}

/// The database answers and this node stays, so requests can be served.
async fn ready(State(server): State<Arc<Server>>) -> (StatusCode, &'static str) {
    if server.nodes.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "this node is stopping\n");
    }
    match server.store.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
    }
}

async fn show_metrics(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let peers = server.peers.admin.sample().await.unwrap_or_else(|refusal| {
        tracing::warn!(%refusal, "no metrics of peers");
        PeersSample::default()
    });
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics::render(&peers),
    )
}
