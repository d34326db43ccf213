//! Keys of end-to-end encryption (client-server API, "Key management" and "Cross-signing").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::keys::{
    claim_keys::v3 as claim_keys, get_key_changes::v3 as get_key_changes, get_keys::v3 as get_keys,
    upload_keys::v3 as upload_keys, upload_signatures::v3 as upload_signatures,
    upload_signing_keys::v3 as upload_signing_keys,
};
use ruma::serde::Raw;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::accounts::OnPage;
use crate::http::codec::completed_body::Completed;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::codec::interactive_auth::{Provable, confirm_on_page};
use crate::http::router::{Endpoints, Routes};
use crate::http::syncing::long_poll::cursor;
use crate::keys::{NewCrossSigningKeys, NewDeviceKeys};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<upload_keys::Request, _>(upload)
        .endpoint::<get_keys::Request, _>(query)
        .endpoint::<claim_keys::Request, _>(claim)
        .endpoint::<get_key_changes::Request, _>(changes)
        .endpoint::<upload_signing_keys::Request, _>(upload_signing)
        .endpoint::<upload_signatures::Request, _>(sign)
}

fn text<T>(raw: Raw<T>) -> String {
    String::from(Box::<str>::from(raw.into_json()))
}

fn raw<T>(value: &Value) -> Result<Raw<T>, Refusal> {
    to_raw_value(value).map(Raw::from_json).map_err(Refusal::internal)
}

async fn upload(
    State(server): State<Arc<Server>>,
    call: Call<upload_keys::Request>,
) -> Reply<upload_keys::Response> {
    let (request, caller) = (call.request, call.caller);
    let keys = |keys: BTreeMap<ruma::OwnedOneTimeKeyId, Raw<_>>| {
        keys.into_iter()
            .map(|(id, key)| (id.to_string(), text(key)))
            .collect()
    };
    let new = NewDeviceKeys {
        device_keys: request.device_keys.map(text),
        one_time_keys: keys(request.one_time_keys),
        fallback_keys: keys(request.fallback_keys),
    };
    let counts = server.keys.upload(&caller, new).await?;
    let counts = counts.one_time.iter();
    let counts = counts.map(|(algorithm, count)| {
        let count = ruma::UInt::new_saturating(*count);
        (algorithm.as_str().into(), count)
    });
    Ok(Answer(upload_keys::Response::new(counts.collect())))
}

async fn query(
    State(server): State<Arc<Server>>,
    call: Call<get_keys::Request>,
) -> Reply<get_keys::Response> {
    let asked = call.request.device_keys.into_iter();
    let names = |devices: Vec<ruma::OwnedDeviceId>| devices.iter().map(ToString::to_string).collect();
    let asked = asked
        .map(|(user_id, devices)| (user_id, names(devices)))
        .collect();
    let found = server.keys.query(&call.caller, asked).await?;
    let mut response = get_keys::Response::new();
    for (user_id, devices) in found.devices {
        let devices = devices
            .iter()
            .map(|(id, keys)| Ok((id.as_str().into(), raw(keys)?)));
        response
            .device_keys
            .insert(user_id, devices.collect::<Result<_, Refusal>>()?);
    }
    response.master_keys = raw_by_user(&found.master)?;
    response.self_signing_keys = raw_by_user(&found.self_signing)?;
    response.user_signing_keys = raw_by_user(&found.user_signing)?;
    response.failures = failures(found.unreachable);
    Ok(Answer(response))
}

/// Servers that could not be asked.
fn failures(unreachable: BTreeSet<ruma::OwnedServerName>) -> BTreeMap<String, Value> {
    let unreachable = unreachable.into_iter();
    unreachable
        .map(|server_name| (server_name.to_string(), json!({})))
        .collect()
}

fn raw_by_user<T>(
    keys: &BTreeMap<ruma::OwnedUserId, Value>,
) -> Result<BTreeMap<ruma::OwnedUserId, Raw<T>>, Refusal> {
    keys.iter()
        .map(|(user_id, key)| Ok((user_id.clone(), raw(key)?)))
        .collect()
}

async fn claim(
    State(server): State<Arc<Server>>,
    call: Call<claim_keys::Request>,
) -> Reply<claim_keys::Response> {
    let claims = call
        .request
        .one_time_keys
        .into_iter()
        .flat_map(|(user_id, devices)| {
            let of_device = move |(device, algorithm): (ruma::OwnedDeviceId, ruma::OneTimeKeyAlgorithm)| {
                (user_id.clone(), device.to_string(), algorithm.to_string())
            };
            devices.into_iter().map(of_device)
        });
    let claimed = server.keys.claim(&call.caller, claims.collect()).await?;
    let mut keys: BTreeMap<_, claim_keys::OneTimeKeys> = BTreeMap::new();
    for key in claimed.keys {
        let key_id = key.key_id.as_str().try_into().map_err(Refusal::internal)?;
        let json = RawValue::from_string(key.json).map_err(Refusal::internal)?;
        let devices = keys.entry(key.user_id).or_default();
        let of_device = devices.entry(key.device_id.as_str().into()).or_default();
        of_device.insert(key_id, Raw::from_json(json));
    }
    let mut response = claim_keys::Response::new(keys);
    response.failures = failures(claimed.unreachable);
    Ok(Answer(response))
}

/// Changes of device lists between two tokens of sync.
async fn changes(
    State(server): State<Arc<Server>>,
    call: Call<get_key_changes::Request>,
) -> Reply<get_key_changes::Response> {
    let (from, to) = (cursor(&call.request.from)?, cursor(&call.request.to)?);
    let lists = server.sync.device_lists(&call.caller, from, to).await?;
    let changed = lists.changed.into_iter().collect();
    Ok(Answer(get_key_changes::Response::new(changed, lists.left)))
}

async fn upload_signing(
    State(server): State<Arc<Server>>,
    call: Call<Provable<upload_signing_keys::Request>>,
) -> Reply<upload_signing_keys::Response> {
    let (Completed { request, .. }, caller) = (call.request, call.caller);
    let new = NewCrossSigningKeys {
        master: request.master_key.map(text),
        self_signing: request.self_signing_key.map(text),
        user_signing: request.user_signing_key.map(text),
    };
    let stored = server.keys.cross_signing_of(&caller.user_id).await?;
    let proved = match stored.would_be_replaced_by(&new) {
        true => {
            let operation = "upload cross-signing keys";
            let what = OnPage::CrossSigningReset;
            Some(confirm_on_page(&server, &caller, operation, request.auth, what).await?)
        }
        false => None,
    };
    server
        .keys
        .upload_cross_signing(&caller.user_id, stored, new, proved)
        .await?;
    Ok(Answer(upload_signing_keys::Response::new()))
}

async fn sign(
    State(server): State<Arc<Server>>,
    call: Call<upload_signatures::Request>,
) -> Reply<upload_signatures::Response> {
    let signed = call.request.signed_keys.iter().map(|(user_id, keys)| {
        let keys = keys
            .iter()
            .map(|(id, json)| (id.to_owned(), json.get().to_owned()));
        (user_id.clone(), keys.collect())
    });
    let failures = server
        .keys
        .upload_signatures(&call.caller, signed.collect())
        .await?;
    let mut response = upload_signatures::Response::new();
    for (user_id, keys) in failures {
        response.failures.insert(user_id, failed(keys)?);
    }
    Ok(Answer(response))
}

fn failed(keys: BTreeMap<String, String>) -> Result<BTreeMap<String, upload_signatures::Failure>, Refusal> {
    let failures = keys.into_iter().map(|(key, why)| {
        let failure = json!({ "errcode": "M_INVALID_SIGNATURE", "error": why });
        Ok((key, serde_json::from_value(failure)?))
    });
    failures
        .collect::<Result<_, serde_json::Error>>()
        .map_err(Refusal::internal)
}
