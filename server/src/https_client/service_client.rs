//! Requests to application services, whose addresses the admin names: they may be anywhere, this machine included. A redirect
//! is an answer like any other and is not followed; time and size are bounded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dial::Dial;

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(30);

/// Connections to one service that are kept while they are not used.
const KEPT: usize = 4;

/// Largest answer, in bytes.
const ANSWER_BYTES: usize = 1 << 20;

/// Why a service did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServiceError {
    /// No connection could be made, or it broke.
    #[error("not reached: {0}")]
    NotReached(String),
    /// It did not answer in time.
    #[error("no answer within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// The answer is too large.
    #[error("the answer has more than {ANSWER_BYTES} bytes")]
    TooLarge,
}

/// What a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl ServiceAnswer {
    /// Whether it is the one answer that says yes.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == StatusCode::OK.as_u16()
    }
}

/// The way to application services. Connections are kept and used again.
#[derive(Clone)]
pub struct ServiceClient {
    client: Client<Dial, Full<Bytes>>,
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceClient")
    }
}

impl ServiceClient {
    /// A way that trusts the authorities that browsers trust.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new() -> Result<Self, rustls::Error> {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(KEPT)
            .build(Dial::new(TlsConnector::from(Arc::new(config))));
        Ok(Self { client })
    }

    /// Puts a JSON body, with a token of this server.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn put(
        &self,
        url: &str,
        token: &str,
        body: Bytes,
        time: Duration,
    ) -> Result<ServiceAnswer, ServiceError> {
        self.request(Method::PUT, url, token, body, time).await
    }

    /// Posts a JSON body, with a token of this server.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn post(
        &self,
        url: &str,
        token: &str,
        body: Bytes,
        time: Duration,
    ) -> Result<ServiceAnswer, ServiceError> {
        self.request(Method::POST, url, token, body, time).await
    }

    /// Gets a document, with a token of this server.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn get(&self, url: &str, token: &str, time: Duration) -> Result<ServiceAnswer, ServiceError> {
        self.request(Method::GET, url, token, Bytes::new(), time).await
    }

    async fn request(
        &self,
        method: Method,
        url: &str,
        token: &str,
        body: Bytes,
        time: Duration,
    ) -> Result<ServiceAnswer, ServiceError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(not_reached)?;
        let asked = timeout(time, self.ask(request)).await;
        asked.unwrap_or(Err(ServiceError::TimedOut(time)))
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<ServiceAnswer, ServiceError> {
        let answer = self.client.request(request).await.map_err(|error| {
            // What lies under it says more: the outermost says that a request failed.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            ServiceError::NotReached(cause.unwrap_or_else(|| error.to_string()))
        })?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(
            |error| match error.downcast::<http_body_util::LengthLimitError>() {
                Ok(_) => ServiceError::TooLarge,
                Err(error) => not_reached(error),
            },
        )?;
        let body = body.to_bytes();
        Ok(ServiceAnswer { status, body })
    }
}

fn not_reached(error: impl fmt::Display) -> ServiceError {
    ServiceError::NotReached(error.to_string())
}
