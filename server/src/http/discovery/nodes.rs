//! Which nodes serve this homeserver, and which of them is the best for a client (`spec/nodes.md`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::Method;
use ruma::api::auth_scheme::AccessToken;
use serde::{Deserialize, Serialize};

use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::Authenticated;
use crate::http::router::Routes;
use crate::nodes::Candidate;
use crate::refusal::Refusal;
use crate::server::Server;

/// The path of the list.
const PATH: &str = "/_matrix/client/unstable/maru/nodes";

pub(in crate::http) fn routes() -> Routes {
    Routes::new().serve(Method::GET, PATH, nodes)
}

/// What a client says of itself.
#[derive(Deserialize)]
struct Asked {
    /// Near what it is; unset: near the node that it asks.
    zone: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    base_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    load: i64,
}

impl From<Candidate> for Node {
    fn from(candidate: Candidate) -> Self {
        Self {
            name: candidate.name,
            base_url: candidate.address,
            zone: candidate.zone,
            load: candidate.load,
        }
    }
}

/// The nodes that a client may use, the best first.
async fn nodes(State(server): State<Arc<Server>>, request: Request) -> Result<Json<Listed>, Response> {
    let judged = Authenticated::<AccessToken>::judge(request, &server).await?;
    let asked = Query::<Asked>::try_from_uri(&judged.parts.uri);
    let Query(asked) =
        asked.map_err(|error| ApiError(Refusal::invalid(error.to_string())).into_response())?;
    let candidates = server.nodes.for_clients(asked.zone.as_deref());
    let nodes = candidates.into_iter().map(Node::from).collect();
    Ok(Json(Listed { nodes }))
}
