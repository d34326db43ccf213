//! What other homeservers ask of this one's domain (`spec/federation.md`, "Keys and names").

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use crate::http::codec::error::ApiError;
use crate::http::router::Routes;
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().serve(Method::GET, "/.well-known/maru/server", server_key)
}

/// This server's root key and record.
async fn server_key(State(server): State<Arc<Server>>) -> Result<Json<Value>, ApiError> {
    let record = server.peers.own_record();
    let record = record.ok_or_else(|| Refusal::not_found("this server does not speak with others"))?;
    let verified = record.verify().map_err(Refusal::internal)?;
    Ok(Json(json!({
        "root_key": verified.root_key.to_base64(),
        "record": STANDARD_NO_PAD.encode(record.as_bytes()),
    })))
}
