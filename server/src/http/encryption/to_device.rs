//! Messages to single devices (client-server API, "Send-to-Device messaging").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::to_device::send_event_to_device::v3 as send_event_to_device;
use serde_json::{Value, json};

use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::Call;
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<send_event_to_device::Request, _>(send)
}

/// The answer is an empty object, or names the devices for which too much waits (`spec/limits.md`).
async fn send(
    State(server): State<Arc<Server>>,
    call: Call<send_event_to_device::Request>,
) -> Result<axum::Json<Value>, ApiError> {
    let (request, caller) = (call.request, call.caller);
    let receivers = request.messages.into_iter().flat_map(|(user_id, devices)| {
        devices
            .into_iter()
            .map(move |(device, content)| (user_id.clone(), device.to_string(), content.into_json()))
    });
    let (event_type, transaction_id) = (request.event_type.to_string(), request.txn_id.to_string());
    let refused = server
        .keys
        .send_to_device(&caller, &event_type, transaction_id, receivers.collect())
        .await?;
    Ok(axum::Json(match refused.is_empty() {
        true => json!({}),
        false => json!({ "maru.refused": refused }),
    }))
}
