//! The caller's devices (client-server API, "Device management").

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use ruma::api::client::device::delete_device::v3 as delete_device;
use ruma::api::client::device::delete_devices::v3 as delete_devices;
use ruma::api::client::device::get_device::v3 as get_device;
use ruma::api::client::device::get_devices::v3 as get_devices;
use ruma::api::client::device::update_device::v3 as update_device;
use serde::Serialize;

use crate::accounts::OnPage;
use crate::http::codec::completed_body::Completed;
use crate::http::codec::error::ApiError;
use crate::http::codec::extractors::{Answer, Call, JsonAnswer, Reply};
use crate::http::codec::interactive_auth::{Provable, confirm_on_page};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;
use crate::store::accounts::devices::{Devices, StoredDevice};

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_devices::Request, _>(devices)
        .endpoint::<get_device::Request, _>(device)
        .endpoint::<update_device::Request, _>(rename)
        .endpoint::<delete_device::Request, _>(delete)
        .endpoint::<delete_devices::Request, _>(delete_several)
}

async fn devices(
    State(server): State<Arc<Server>>,
    call: Call<get_devices::Request>,
) -> Result<JsonAnswer<DeviceList>, ApiError> {
    let devices = server.accounts.devices(&call.caller.user_id).await?;
    let devices = devices.into_iter().map(Device::from).collect();
    Ok(JsonAnswer(DeviceList { devices }))
}

async fn device(
    State(server): State<Arc<Server>>,
    call: Call<get_device::Request>,
) -> Result<JsonAnswer<Device>, ApiError> {
    let device_id = call.request.device_id.as_str();
    let device = server.accounts.device(&call.caller.user_id, device_id).await?;
    Ok(JsonAnswer(device.into()))
}

async fn rename(
    State(server): State<Arc<Server>>,
    call: Call<update_device::Request>,
) -> Result<(StatusCode, Answer<update_device::Response>), ApiError> {
    let (user_id, device_id) = (&call.caller.user_id, call.request.device_id.as_str());
    let name = call.request.display_name;
    let mut status = StatusCode::OK;
    match name {
        // Application services make devices without logging in.
        name if call.caller.service.is_some() => {
            if server
                .accounts
                .put_service_device(user_id, device_id, name)
                .await?
            {
                status = StatusCode::CREATED;
            }
        }
        Some(name) => server.accounts.rename_device(user_id, device_id, name).await?,
        None => drop(server.accounts.device(user_id, device_id).await?),
    }
    Ok((status, Answer(update_device::Response::new())))
}

async fn delete(
    State(server): State<Arc<Server>>,
    call: Call<Provable<delete_device::Request>>,
) -> Reply<delete_device::Response> {
    let Completed { request, .. } = call.request;
    let this = vec![request.device_id.to_string()];
    let what = OnPage::SignOut(this.clone());
    let proved = confirm_on_page(&server, &call.caller, "delete_device", request.auth, what).await?;
    let this = Devices::These(this);
    server
        .accounts
        .remove_devices(&call.caller.user_id, this, Some(proved))
        .await?;
    Ok(Answer(delete_device::Response::new()))
}

async fn delete_several(
    State(server): State<Arc<Server>>,
    call: Call<Provable<delete_devices::Request>>,
) -> Reply<delete_devices::Response> {
    let Completed { request, .. } = call.request;
    let these: Vec<_> = request.devices.iter().map(ToString::to_string).collect();
    let what = OnPage::SignOut(these.clone());
    let proved = confirm_on_page(&server, &call.caller, "delete_devices", request.auth, what).await?;
    server
        .accounts
        .remove_devices(&call.caller.user_id, Devices::These(these), Some(proved))
        .await?;
    Ok(Answer(delete_devices::Response::new()))
}

/// A device on the wire. Not ruma's type, which has null where the specification leaves a field out.
#[derive(Serialize)]
struct Device {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ts: Option<i64>,
}

#[derive(Serialize)]
struct DeviceList {
    devices: Vec<Device>,
}

impl From<StoredDevice> for Device {
    fn from(stored: StoredDevice) -> Self {
        Self {
            device_id: stored.device_id,
            display_name: stored.display_name,
            last_seen_ip: stored.last_seen_address,
            last_seen_ts: stored.last_seen_at,
        }
    }
}
