//! A browser and an application, as far as signing in needs them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use maru_tests::user::encode;
use maru_tests::{Api, Reply};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Names and values as a form or a query has them.
pub(super) fn encoded(fields: &[(&str, &str)]) -> String {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Sends a form as applications do.
pub(super) async fn post_form(api: &Api, path: &str, fields: &[(&str, &str)]) -> Reply {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(encoded(fields)))
        .unwrap();
    api.send(request).await.unwrap()
}

/// What a browser was shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Shown {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The seal of its forms.
    pub(super) fn seal(&self) -> String {
        let (_, rest) = self
            .text
            .split_once("name=\"seal\" value=\"")
            .unwrap_or_else(|| panic!("no form in {}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }

    /// Where the browser is sent, and the names and values of the answer that it takes there.
    pub(super) fn sent_to(&self) -> (String, Vec<(String, String)>) {
        assert_eq!(self.status, 303, "{}", self.text);
        let to = self.header("location");
        let (address, answer) = to.rsplit_once(['?', '#']).unwrap_or((to, ""));
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let mut bytes = Vec::new();
            let mut rest = text.bytes();
            while let Some(byte) = rest.next() {
                match byte {
                    b'%' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        let digits = std::str::from_utf8(&digits).unwrap();
                        bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    }
                    byte => bytes.push(byte),
                }
            }
            String::from_utf8(bytes).unwrap()
        };
        let pairs = answer.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (decode(name), decode(value)));
        (address.to_owned(), pairs.collect())
    }

    /// One value of that answer.
    pub(super) fn answered(&self, name: &str) -> String {
        let (_, answer) = self.sent_to();
        let found = answer.iter().find(|(known, _)| known == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {answer:?}"))
            .1
            .clone()
    }

    /// Whether a page says a sentence, as it stands in HTML.
    pub(super) fn says(&self, sentence: &str) -> bool {
        self.text.contains(sentence)
    }
}

/// A browser with its cookie.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    api: Api,
    pub(super) cookie: Option<String>,
    pub(super) language: &'static str,
}

impl Browser {
    pub(super) fn new(api: &Api) -> Self {
        Self {
            api: api.clone(),
            cookie: None,
            language: "en",
        }
    }

    /// The same browser at another node, or after a restart.
    pub(super) fn at(&self, api: &Api) -> Self {
        Self {
            api: api.clone(),
            ..self.clone()
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Shown {
        self.ask(Method::GET, path, None, &[]).await
    }

    /// Sends the form of a page to where it was shown.
    pub(super) async fn send(&mut self, path: &str, page: &Shown, fields: &[(&str, &str)]) -> Shown {
        let seal = page.seal();
        let fields = [&[("seal", &*seal)], fields].concat();
        self.post(path, &fields, &[]).await
    }

    /// Sends any form.
    pub(super) async fn post(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Shown {
        self.ask(Method::POST, path, Some(encoded(fields)), headers).await
    }

    pub(super) async fn sign_in(&mut self, path: &str, page: &Shown, name: &str, password: &str) -> Shown {
        let fields = [("step", "sign_in"), ("name", name), ("password", password)];
        self.send(path, page, &fields).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        form: Option<String>,
        headers: &[(&str, &str)],
    ) -> Shown {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT_LANGUAGE, self.language);
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("theme=dark; {cookie}"));
        }
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::from(form.unwrap_or_default())).unwrap();
        let reply = self.api.send(request).await.unwrap();
        if let Some(cookie) = reply.headers.get(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (pair, guards) = cookie.split_once(';').unwrap();
            assert_eq!(guards, " Path=/; HttpOnly; SameSite=Lax; Secure", "{cookie}");
            assert!(pair.starts_with("__Host-maru="), "{cookie}");
            self.cookie = Some(pair.to_owned());
        }
        Shown {
            status: reply.status.as_u16(),
            headers: reply.headers,
            text: String::from_utf8_lossy(&reply.body).into_owned(),
        }
    }
}

/// An application that has registered.
#[derive(Clone, Debug)]
pub(super) struct Application {
    pub(super) api: Api,
    pub(super) id: String,
    pub(super) redirect_uri: String,
    pub(super) verifier: String,
}

/// What an application of the web says of itself.
pub(super) fn metadata(name: &str) -> Value {
    json!({
        "client_name": name,
        "client_uri": "https://app.example.com/",
        "redirect_uris": ["https://app.example.com/cb"],
        "grant_types": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "web",
    })
}

impl Application {
    pub(super) async fn register(api: &Api, name: &str) -> Self {
        Self::registered(api, metadata(name)).await
    }

    pub(super) async fn registered(api: &Api, metadata: Value) -> Self {
        let reply = register(api, metadata.clone()).await;
        assert_eq!(reply.status, 201, "{}", reply.json);
        assert_eq!(reply.json["redirect_uris"], metadata["redirect_uris"]);
        Self {
            api: api.clone(),
            id: reply.json["client_id"].as_str().unwrap().to_owned(),
            redirect_uri: metadata["redirect_uris"][0].as_str().unwrap().to_owned(),
            verifier: "a-verifier-of-forty-three-or-more-characters".into(),
        }
    }

    pub(super) fn at(&self, api: &Api) -> Self {
        Self {
            api: api.clone(),
            ..self.clone()
        }
    }

    /// The path of an authorization request, with some parameters other; an empty one is left out.
    pub(super) fn request(&self, device: &str, changes: &[(&str, &str)]) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier));
        let scope = scope(device);
        let usual = [
            ("client_id", &*self.id),
            ("redirect_uri", &*self.redirect_uri),
            ("response_type", "code"),
            ("response_mode", "query"),
            ("scope", &*scope),
            ("state", "a state & more"),
            ("code_challenge", &*challenge),
            ("code_challenge_method", "S256"),
        ];
        let is_other = |name: &str| changes.iter().any(|(other, _)| *other == name);
        let kept = usual.into_iter().filter(|(name, _)| !is_other(name));
        let changed = changes.iter().copied().filter(|(_, value)| !value.is_empty());
        let all: Vec<_> = kept.chain(changed).collect();
        format!("/oauth/authorize?{}", encoded(&all))
    }

    pub(super) async fn token(&self, fields: &[(&str, &str)]) -> Reply {
        let fields = [&[("client_id", &*self.id)], fields].concat();
        post_form(&self.api, "/oauth/token", &fields).await
    }

    pub(super) async fn exchange(&self, code: &str) -> Reply {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", &self.verifier),
        ])
        .await
    }

    pub(super) async fn refresh(&self, token: &str) -> Reply {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)])
            .await
    }

    pub(super) async fn revoke(&self, token: &str) -> Reply {
        let fields = [("client_id", &*self.id), ("token", token)];
        post_form(&self.api, "/oauth/revoke", &fields).await
    }
}

/// The scope of an application that becomes this device.
pub(super) fn scope(device: &str) -> String {
    format!("urn:matrix:client:api:* urn:matrix:client:device:{device}")
}

pub(super) async fn register(api: &Api, metadata: Value) -> Reply {
    api.request(Method::POST, "/oauth/register", None, Some(metadata))
        .await
}

/// Checks that an application is told this error, and that nobody may keep the answer.
#[track_caller]
pub(super) fn refused(reply: &Reply, status: u16, error: &str) {
    let body = String::from_utf8_lossy(&reply.body);
    let found = (reply.status.as_u16(), reply.json["error"].as_str());
    assert_eq!(found, (status, Some(error)), "{body}");
    assert!(reply.json["error_description"].is_string(), "{body}");
    assert_eq!(reply.headers["cache-control"], "no-store");
}
