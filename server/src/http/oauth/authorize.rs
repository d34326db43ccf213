//! Authorization requests: a person signs in and allows what an application asks for (RFC 6749, section 3.1).

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::json;

use super::form::PageForm;
use super::pages::sent_on;
use super::sign_in::{self, Occasion};
use super::visit::Visit;
use crate::http::router::Routes;
use crate::oauth::{AuthorizationRequest, OAuthError, Prompt, SignedIn, Turned};
use crate::refusal::Refusal;

const PATH: &str = "/oauth/authorize";

pub(super) fn routes() -> Routes {
    Routes::new()
        .serve(Method::GET, PATH, show)
        .serve(Method::POST, PATH, decide)
}

async fn show(visit: Visit) -> Response {
    let request = match visit.oauth.authorization(&visit.query).await {
        Ok(request) => request,
        Err(turned) => return turned_away(&visit, turned),
    };
    let occasion = occasion(&request);
    match (&visit.signed_in, request.prompt) {
        (_, Prompt::Create) => sign_in::create_page(&visit, &occasion).await,
        (Some(who), Prompt::Any | Prompt::None) => consent(&visit, &request, who),
        _ => sign_in::page(&visit, &occasion).await,
    }
}

async fn decide(visit: Visit, PageForm(form): PageForm) -> Result<Response, Response> {
    visit.check(&form)?;
    let request = match visit.oauth.authorization(&visit.query).await {
        Ok(request) => request,
        Err(turned) => return Ok(turned_away(&visit, turned)),
    };
    let occasion = occasion(&request);
    if let Some(response) = sign_in::step(&visit, &form, &occasion).await {
        return Ok(response);
    }
    let Some(who) = &visit.signed_in else {
        return Ok(sign_in::page(&visit, &occasion).await);
    };
    Ok(match form.get("step") {
        Some("allow") => match visit.oauth.allow(request, who).await {
            Ok(to) => sent_on(&to),
            Err(error) => visit.failed(&Refusal::Unavailable(error.description)),
        },
        Some("deny") => sent_on(&visit.oauth.deny(&request)),
        _ => consent(&visit, &request, who),
    })
}

fn occasion(request: &AuthorizationRequest) -> Occasion {
    Occasion {
        client: Some(request.client.name()),
        name: request.login_hint.clone(),
        may_create: true,
    }
}

fn consent(visit: &Visit, request: &AuthorizationRequest, who: &SignedIn) -> Response {
    let (tos, policy) = request.client.pages();
    let values = json!({
        "client": request.client.name(),
        "site": request.client.host(),
        "returns_to": request.returns_to(),
        "user": who.user_id,
        "tos": tos,
        "policy": policy,
    });
    let target = Some(request.form_target());
    visit.page(StatusCode::OK, "consent.html", values, target)
}

fn turned_away(visit: &Visit, turned: Turned) -> Response {
    match turned {
        Turned::Back(to) => sent_on(&to),
        Turned::Here(error) => told(visit, &error),
    }
}

/// Tells the person what is wrong with a request whose client cannot be told.
fn told(visit: &Visit, error: &OAuthError) -> Response {
    use crate::oauth::ErrorCode::{ServerError, TemporarilyUnavailable};
    if matches!(error.code, ServerError | TemporarilyUnavailable) {
        return visit.failed(&Refusal::Unavailable(error.description.clone()));
    }
    let values = json!({
        "heading": "failed",
        "text": "request_bad",
        "detail": format!("{}: {}", error.code.name(), error.description),
    });
    visit.page(StatusCode::BAD_REQUEST, "message.html", values, None)
}
