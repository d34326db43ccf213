//! A visit: a browser that asks for a page or sends a form, with its cookie and who is signed in in it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::pages::{Language, Page, problem, sent_on, status_of, turned_away};
use super::turned_on;
use crate::http::transport::client_address::ClientAddress;
use crate::oauth::{OAuth, Parameters, SignedIn};
use crate::refusal::Refusal;
use crate::server::Server;

/// Longest cookie that is looked at, in bytes.
const COOKIE_BYTES: usize = 128;

/// The cookie's name where the server is reached by https: browsers let only that host set it.
const GUARDED: &str = "__Host-maru";

/// The cookie's name where it is not.
const PLAIN: &str = "maru";

/// A browser that comes.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) server: Arc<Server>,
    pub(super) oauth: Arc<OAuth>,
    /// Where it comes from.
    pub(super) address: ClientAddress,
    /// What stands in its address.
    pub(super) query: Parameters,
    /// Who is signed in.
    pub(super) signed_in: Option<SignedIn>,
    language: Language,
    path: String,
    cookie: String,
    has_cookie: bool,
    /// Whether the browser says that another site has it send this.
    is_foreign: bool,
}

impl FromRequestParts<Arc<Server>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Response> {
        let oauth = turned_on(server).await?;
        let language = Language::of(&parts.headers);
        let path = parts.uri.path().to_owned();
        let failed = |refusal: Refusal| turned_away(server, language, &path, &refusal);
        let query = Parameters::read(parts.uri.query().unwrap_or_default().as_bytes());
        let query = query.map_err(|error| failed(Refusal::invalid(error.description)))?;
        let cookie = cookie(&parts.headers, cookie_name(&oauth));
        let signed_in = match &cookie {
            Some(cookie) => oauth.signed_in(cookie).await.map_err(failed)?,
            None => None,
        };
        let site = parts.headers.get("sec-fetch-site");
        let address = parts.extensions.get::<ClientAddress>().copied();
        Ok(Self {
            server: Arc::clone(server),
            address: address.unwrap_or_default(),
            query,
            signed_in,
            language,
            has_cookie: cookie.is_some(),
            cookie: cookie.unwrap_or_else(|| oauth.new_cookie()),
            is_foreign: site.is_some_and(|site| site != "same-origin" && site != "none"),
            oauth,
            path,
        })
    }
}

fn cookie_name(oauth: &OAuth) -> &'static str {
    match oauth.issuer().starts_with("https:") {
        true => GUARDED,
        false => PLAIN,
    }
}

/// A cookie of a request.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    let value = pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_ours = !value.is_empty() && value.len() <= COOKIE_BYTES && value.chars().all(plain);
    is_ours.then(|| value.to_owned())
}

impl Visit {
    /// Makes sure that a form was shown to this browser by this server.
    #[expect(
        clippy::result_large_err,
        reason = "axum takes rejections as responses; this one is rare"
    )]
    pub(super) fn check(&self, form: &Parameters) -> Result<(), Response> {
        let seal = form.get("seal").unwrap_or_default();
        if self.has_cookie && !self.is_foreign && self.oauth.is_sealed(&self.cookie, seal) {
            return Ok(());
        }
        let text = json!({ "heading": "failed", "text": "form_old", "back": self.here() });
        Err(self.page(StatusCode::FORBIDDEN, "message.html", text, None))
    }

    /// A page with these values.
    pub(super) fn page(
        &self,
        status: StatusCode,
        template: &'static str,
        mut values: Value,
        form_target: Option<String>,
    ) -> Response {
        values["seal"] = json!(self.oauth.form_seal(&self.cookie));
        let page = Page {
            template,
            values,
            status,
            language: self.language,
            path: &self.path,
            form_target,
        };
        let mut response = page.answer(&self.server);
        if !self.has_cookie {
            self.set_cookie(&mut response, &self.cookie);
        }
        response
    }

    /// A page that says why what it shows was not done.
    pub(super) fn page_with(&self, template: &'static str, mut values: Value, refusal: &Refusal) -> Response {
        if let Refusal::Internal(cause) = refusal {
            tracing::error!(%cause, "a form failed");
        }
        // What is said of the page's own form is more than what is said of all.
        if values.get("problem").is_none_or(Value::is_null) {
            values["problem"] = json!(problem(refusal));
        }
        self.page(status_of(refusal), template, values, None)
    }

    /// A page that says no more than that something was not done.
    pub(super) fn failed(&self, refusal: &Refusal) -> Response {
        turned_away(&self.server, self.language, &self.path, refusal)
    }

    /// Sends the browser on, signed in or out by another cookie.
    pub(super) fn sent_on_as(&self, to: &str, cookie: &str) -> Response {
        let mut response = sent_on(to);
        self.set_cookie(&mut response, cookie);
        response
    }

    /// This address, as it is written on its own page.
    pub(super) fn here(&self) -> String {
        self.here_with("", None)
    }

    /// This address with one parameter more or other, or without it.
    pub(super) fn here_with(&self, name: &str, value: Option<&str>) -> String {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        format!("{last}?{}", self.query.with(name, value))
    }

    /// Signs somebody in who has proved to be that, in place of who was signed in: the browser's new cookie.
    pub(super) async fn sign_in(&self, who: &SignedIn) -> Result<String, Refusal> {
        self.oauth.sign_out(&self.cookie).await?;
        self.oauth.sign_in(&who.user_id, who.proved).await
    }

    /// Signs out whoever is signed in, and shows this address again.
    pub(super) async fn sign_out(&self) -> Response {
        match self.oauth.sign_out(&self.cookie).await {
            Ok(()) => self.sent_on_as(&self.here(), &self.oauth.new_cookie()),
            Err(refusal) => self.failed(&refusal),
        }
    }

    fn set_cookie(&self, response: &mut Response, cookie: &str) {
        let name = cookie_name(&self.oauth);
        let secure = if name == GUARDED { "; Secure" } else { "" };
        let text = format!("{name}={cookie}; Path=/; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cookie_of_that_name_counts() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            cookie(&headers, "maru")
        };
        assert_eq!(read("maru=abc").as_deref(), Some("abc"));
        assert_eq!(read("a=b; maru=a_b-c;x=y").as_deref(), Some("a_b-c"));
        for none in [
            "",
            "maru",
            "maru=",
            "marux=1",
            "xmaru=1",
            "maru=a b",
            "maru=\"a\"",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(read(&format!("maru={}", "a".repeat(129))), None);
    }
}
