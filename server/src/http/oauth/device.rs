//! Devices without a browser: what they ask, and the page on which their codes are typed (RFC 8628).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::json;

use super::form::{ApplicationForm, PageForm};
use super::sign_in::{self, Occasion};
use super::visit::Visit;
use super::{secret_json, turned_on};
use crate::http::router::Routes;
use crate::limits::Budget;
use crate::oauth::{DeviceRequest, SignedIn};
use crate::refusal::Refusal;
use crate::server::Server;

const PAGE: &str = "/oauth/device";

pub(super) fn routes() -> Routes {
    Routes::new()
        .serve(Method::POST, "/oauth/device_authorization", begin)
        .serve(Method::GET, PAGE, show)
        .serve(Method::POST, PAGE, decide)
}

async fn begin(
    State(server): State<Arc<Server>>,
    ApplicationForm(form): ApplicationForm,
) -> Result<Response, Response> {
    let oauth = turned_on(&server).await?;
    let begun = oauth.begin_device_grant(&form).await;
    let begun = begun.map_err(IntoResponse::into_response)?;
    let page = format!("{}{PAGE}", oauth.issuer());
    let body = json!({
        "device_code": begun.device_code,
        "user_code": begun.user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", begun.user_code),
        "expires_in": begun.expires_in,
        "interval": begun.interval,
    });
    Ok(secret_json(StatusCode::OK, &body))
}

async fn show(visit: Visit) -> Response {
    let Some(who) = &visit.signed_in else {
        return sign_in::page(&visit, &Occasion::default()).await;
    };
    match visit.query.get("user_code") {
        Some(code) => look_up(&visit, who, code).await,
        None => visit.page(StatusCode::OK, "device.html", json!({}), None),
    }
}

async fn decide(visit: Visit, PageForm(form): PageForm) -> Result<Response, Response> {
    visit.check(&form)?;
    if let Some(response) = sign_in::step(&visit, &form, &Occasion::default()).await {
        return Ok(response);
    }
    let Some(who) = &visit.signed_in else {
        return Ok(sign_in::page(&visit, &Occasion::default()).await);
    };
    let code = form.get("user_code").unwrap_or_default();
    Ok(match form.get("step") {
        Some("allow") => answer(&visit, who, code, true).await,
        Some("deny") => answer(&visit, who, code, false).await,
        _ => look_up(&visit, who, code).await,
    })
}

/// Shows what the device with a code asks for.
async fn look_up(visit: &Visit, who: &SignedIn, code: &str) -> Response {
    match found(visit, who, code).await {
        Ok(request) => consent(visit, who, &request),
        Err(refusal) => not_found(visit, &refusal),
    }
}

async fn found(visit: &Visit, who: &SignedIn, code: &str) -> Result<DeviceRequest, Refusal> {
    visit.server.budgets.spend(Budget::UserCodes, &who.user_id)?;
    let request = visit.oauth.device_request(code).await?;
    request.ok_or_else(|| Refusal::not_found("there is no such code"))
}

fn not_found(visit: &Visit, refusal: &Refusal) -> Response {
    let problem = matches!(refusal, Refusal::NotFound(_)).then_some("code_wrong");
    visit.page_with("device.html", json!({ "problem": problem }), refusal)
}

fn consent(visit: &Visit, who: &SignedIn, request: &DeviceRequest) -> Response {
    let (tos, policy) = request.client.pages();
    let values = json!({
        "client": request.client.name(),
        "site": request.client.host(),
        "user": who.user_id,
        "user_code": request.user_code,
        "tos": tos,
        "policy": policy,
    });
    visit.page(StatusCode::OK, "consent.html", values, None)
}

async fn answer(visit: &Visit, who: &SignedIn, code: &str, allows: bool) -> Response {
    let answered = async {
        let request = found(visit, who, code).await?;
        match visit.oauth.answer_device(&request, who, allows).await? {
            true => Ok(()),
            false => Err(Refusal::not_found("there is no such code")),
        }
    };
    let (heading, text) = match allows {
        true => ("device_allowed", "device_allowed_text"),
        false => ("device_denied", "device_denied_text"),
    };
    match answered.await {
        Ok(()) => {
            let values = json!({ "heading": heading, "text": text });
            visit.page(StatusCode::OK, "message.html", values, None)
        }
        Err(refusal) => not_found(visit, &refusal),
    }
}
