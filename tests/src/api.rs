//! Requests and answers: in process, straight into the router, or over HTTP to a running binary.

use axum::Router;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::User;

/// What relative paths stand under.
const CLIENT_API: &str = "/_matrix/client/v3/";

/// Where requests go.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a test has a handful of these")]
pub enum Api {
    /// Into a router of this process.
    InProcess(Router),
    /// To a server at `base`, for example `http://127.0.0.1:8008`.
    Http {
        /// Connections are kept and shared.
        client: Client<HttpConnector, Full<Bytes>>,
        /// Scheme and authority.
        base: String,
    },
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status, for example 200.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The bytes.
    pub body: Bytes,
    /// The body as JSON; null when it is none.
    pub json: Value,
}

impl Reply {
    /// The JSON of a 200 answer.
    ///
    /// # Panics
    /// When it is another status, with the whole answer.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json
    }

    /// Checks that the answer is this error, with a sentence that explains it.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn refused(&self, status: u16, errcode: &str) {
        let body = String::from_utf8_lossy(&self.body);
        let found = (self.status.as_u16(), self.json["errcode"].as_str());
        assert_eq!(found, (status, Some(errcode)), "{body}");
        assert!(
            self.json["error"].as_str().is_some_and(|text| !text.is_empty()),
            "{body}"
        );
    }
}

impl Api {
    /// To the server that listens at `base`.
    #[must_use]
    pub fn http(base: &str) -> Self {
        Self::Http {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    /// Makes a request. A `path` that does not begin with a slash stands under `/_matrix/client/v3/`.
    ///
    /// # Panics
    /// When no answer comes; see [`Api::try_request`].
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Reply {
        let body = body.map(|body| body.to_string().into());
        let sent = self.try_request(method, path, token, body).await;
        sent.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Makes a request with a body of any bytes.
    ///
    /// # Errors
    /// When the connection broke or could not be made.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Bytes>,
    ) -> Result<Reply, String> {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{CLIENT_API}{path}"),
        };
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        self.send(request.body(body.unwrap_or_default()).unwrap()).await
    }

    /// Sends a request as it is; its URI is a path.
    ///
    /// # Errors
    /// When the connection broke or could not be made.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Reply, String> {
        let (mut parts, body) = request.into_parts();
        match self {
            Self::InProcess(router) => {
                let request = Request::from_parts(parts, axum::body::Body::from(body));
                let response = router
                    .clone()
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {});
                read(response).await
            }
            Self::Http { client, base } => {
                parts.uri = format!("{base}{}", parts.uri)
                    .parse()
                    .map_err(|error| format!("{error}"))?;
                let request = Request::from_parts(parts, Full::new(body));
                let response = client
                    .request(request)
                    .await
                    .map_err(|error| format!("{error:?}"))?;
                read(response).await
            }
        }
    }

    /// Registers a user, with one device.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn register(&self, name: &str) -> User {
        let password = format!("the password of {name}");
        let body = json!({
            "username": name,
            "password": password,
            "auth": { "type": "m.login.dummy" },
        });
        let reply = self
            .request(Method::POST, "register", None, Some(body))
            .await
            .ok();
        User::from_session(self.clone(), name, &password, &reply)
    }

    /// Logs a user in by password, on a new device.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn log_in(&self, name: &str, password: &str) -> User {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": name },
            "password": password,
        });
        let reply = self.request(Method::POST, "login", None, Some(body)).await.ok();
        User::from_session(self.clone(), name, password, &reply)
    }
}

async fn read<B>(response: http::Response<B>) -> Result<Reply, String>
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| format!("{error:?}"))?
        .to_bytes();
    Ok(Reply {
        status: parts.status,
        headers: parts.headers,
        json: serde_json::from_slice(&body).unwrap_or(Value::Null),
        body,
    })
}
