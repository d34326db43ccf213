//! Pages: templates to HTML, and the headers by which browsers keep others out of them.

use std::sync::{Arc, LazyLock};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Value, json};

pub(super) use super::phrases::Language;
use super::turned_on;
use crate::http::codec::error::{ApiError, on_the_wire};
use crate::http::router::Routes;
use crate::refusal::Refusal;
use crate::server::Server;

/// The style sheet of all pages.
const STYLE: &str = include_str!("../../../web/style.css");

/// The templates, by their names. What is put into one is escaped, since it is HTML by its name.
const TEMPLATES: [(&str, &str); 7] = [
    ("layout.html", include_str!("../../../web/layout.html")),
    ("sign_in.html", include_str!("../../../web/sign_in.html")),
    ("create.html", include_str!("../../../web/create.html")),
    ("consent.html", include_str!("../../../web/consent.html")),
    ("device.html", include_str!("../../../web/device.html")),
    ("account.html", include_str!("../../../web/account.html")),
    ("message.html", include_str!("../../../web/message.html")),
];

static ENVIRONMENT: LazyLock<Result<Environment<'static>, String>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    for (name, text) in TEMPLATES {
        let added = environment.add_template(name, text);
        added.map_err(|error| error.to_string())?;
    }
    Ok(environment)
});

pub(super) fn routes() -> Routes {
    Routes::new().serve(Method::GET, "/oauth/style.css", style)
}

async fn style(
    axum::extract::State(server): axum::extract::State<Arc<Server>>,
) -> Result<Response, Response> {
    turned_on(&server).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, STYLE).into_response())
}

/// A page to be shown.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) template: &'static str,
    /// What the template is given, an object.
    pub(super) values: Value,
    pub(super) status: StatusCode,
    pub(super) language: Language,
    /// The path that it is shown at.
    pub(super) path: &'a str,
    /// Where besides this server the answer to its forms may lead.
    pub(super) form_target: Option<String>,
}

impl Page<'_> {
    /// The page as an answer.
    pub(super) fn answer(self, server: &Server) -> Response {
        let rendered = self.render(server);
        let html = match rendered {
            Ok(html) => html,
            Err(refusal) => return ApiError(refusal).into_response(),
        };
        let mut response = (self.status, html).into_response();
        let headers = response.headers_mut();
        guard(headers);
        let target = self.form_target.unwrap_or_default();
        let policy = format!(
            "default-src 'none'; style-src 'self'; form-action 'self' {target}; frame-ancestors 'none'; base-uri 'none'"
        );
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_LANGUAGE, self.language.tag()),
            (header::CONTENT_SECURITY_POLICY, policy.as_str()),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            match HeaderValue::from_str(value) {
                Ok(value) => drop(headers.insert(name, value)),
                Err(error) => return ApiError(Refusal::internal(error)).into_response(),
            }
        }
        response
    }

    fn render(&self, server: &Server) -> Result<String, Refusal> {
        let environment = ENVIRONMENT.as_ref().map_err(Refusal::internal)?;
        let template = environment.get_template(self.template);
        let template = template.map_err(Refusal::internal)?;
        let mut values = self.values.clone();
        values["t"] = json!(self.language.phrases()?);
        values["lang"] = json!(self.language.tag());
        values["server"] = json!(server.identity.server_name);
        // Beside the page, wherever a proxy shows it.
        values["style"] = match self.path.ends_with("/account") {
            true => json!("oauth/style.css"),
            false => json!("style.css"),
        };
        let values = minijinja::value::Serde(&values);
        template.render(values).map_err(Refusal::internal)
    }
}

/// Nobody keeps the answer, and nobody is told where the browser was.
fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Sends a browser on, by GET.
pub(super) fn sent_on(to: &str) -> Response {
    let Ok(to) = HeaderValue::from_str(to) else {
        return ApiError(Refusal::internal("an address that is no header")).into_response();
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    guard(response.headers_mut());
    response.headers_mut().insert(header::LOCATION, to);
    response
}

/// What a person is told of a refusal: the name of a sentence.
pub(super) fn problem(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::LimitExceeded { .. } => "too_many",
        Refusal::Unavailable(_) | Refusal::Internal(_) => "try_later",
        Refusal::WeakPassword(_) => "weak_password",
        Refusal::UserInUse => "name_taken",
        Refusal::InvalidUsername(_) => "name_invalid",
        Refusal::InteractiveAuth(_) => "token_wrong",
        _ => "not_done",
    }
}

/// The status of an answer that tells of a refusal.
pub(super) fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::InteractiveAuth(_) => StatusCode::FORBIDDEN,
        refusal => on_the_wire(refusal).0,
    }
}

/// Tells a person that a request is not done, outside any form.
pub(super) fn turned_away(server: &Server, language: Language, path: &str, refusal: &Refusal) -> Response {
    if let Refusal::Internal(cause) = refusal {
        tracing::error!(%cause, "a page failed");
    }
    let page = Page {
        template: "message.html",
        values: json!({ "heading": "failed", "text": problem(refusal) }),
        status: status_of(refusal),
        language,
        path,
        form_target: None,
    };
    page.answer(server)
}
