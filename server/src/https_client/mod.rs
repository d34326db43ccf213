//! Being a client of web servers: small documents from those that strangers name, and of those that the admin names the object
//! storage (`storage_connector.rs`) and application services (`service_client.rs`).
//!
//! Whoever may choose where a server sends a request reaches what only that server can reach. So the [`Resolver`] gives
//! public addresses only, the connection goes to the very address that was judged, a redirect to another host is not
//! followed, and time and size are bounded.

mod dial;
mod resolver;
mod service_client;
mod storage_connector;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ruma::ServerName;
use rustls::pki_types::ServerName as TlsName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

pub use resolver::{PublicOnly, Resolver};
pub use service_client::{ServiceAnswer, ServiceClient, ServiceError};
pub use storage_connector::StorageConnector;

/// Time for a document, redirects included.
const TIME: Duration = Duration::from_secs(10);

/// Largest document, in bytes; the head of an answer has as much again.
const BYTES: usize = 16 * 1024;

/// Redirects within the site that are followed.
const REDIRECTS: usize = 3;

/// Addresses of one site that are tried.
const ADDRESSES: usize = 4;

/// Why a document was not fetched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WebError {
    /// Its address could not be found, or none of its addresses is public.
    #[error("no public address: {0}")]
    NoAddress(String),
    /// No connection could be made, or it broke.
    #[error("not reached: {0}")]
    NotReached(String),
    /// Another status than 200.
    #[error("answered with status {0}")]
    Status(u16),
    /// It sends us to another host, or round and round.
    #[error("sends us elsewhere: {0}")]
    Redirected(String),
    /// It did not answer within 10 seconds.
    #[error("no answer within {} seconds", TIME.as_secs())]
    TimedOut,
    /// More than 16 KiB.
    #[error("the answer has more than {BYTES} bytes")]
    TooLarge,
}

/// The web, as far as this server looks at it.
#[derive(Clone)]
pub struct HttpsClient {
    resolver: Arc<dyn Resolver>,
    tls: TlsConnector,
}

impl fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("resolver", &self.resolver).finish()
    }
}

/// What a site answers.
enum Answer {
    Document(Bytes),
    Elsewhere(String),
}

impl HttpsClient {
    /// Public addresses, and the authorities that browsers trust.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn public() -> Result<Self, WebError> {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Self::through(PublicOnly, roots)
    }

    /// Another resolver and other authorities, for tests that have a web of their own.
    ///
    /// # Errors
    /// As [`HttpsClient::public`].
    pub fn through(resolver: impl Resolver, roots: RootCertStore) -> Result<Self, WebError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(not_reached)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            resolver: Arc::new(resolver),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Fetches `https://<site><path>`: at most 16 KiB within 10 seconds.
    ///
    /// # Errors
    /// [`WebError`].
    pub async fn get(&self, site: &ServerName, path: &str) -> Result<Bytes, WebError> {
        let followed = tokio::time::timeout(TIME, self.follow(site, path)).await;
        followed.map_err(|_| WebError::TimedOut)?
    }

    async fn follow(&self, site: &ServerName, path: &str) -> Result<Bytes, WebError> {
        let mut path = path.to_owned();
        for _ in 0..=REDIRECTS {
            match self.ask(site, &path).await? {
                Answer::Document(bytes) => return Ok(bytes),
                Answer::Elsewhere(location) => {
                    path = path_within(site, &location).ok_or(WebError::Redirected(location))?;
                }
            }
        }
        Err(WebError::Redirected(path))
    }

    async fn ask(&self, site: &ServerName, path: &str) -> Result<Answer, WebError> {
        let stream = TokioIo::new(self.connect(site).await?);
        let mut builder = http1::Builder::new();
        let (mut sender, connection) = builder
            .max_buf_size(BYTES)
            .handshake(stream)
            .await
            .map_err(not_reached)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(path)
            .header(header::HOST, site.as_str())
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(not_reached)?;
        let answer = sender.send_request(request).await.map_err(not_reached)?;
        let status = answer.status();
        if status.is_redirection() {
            let location = answer.headers().get(header::LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            return Ok(Answer::Elsewhere(location.unwrap_or_default().to_owned()));
        }
        if status != StatusCode::OK {
            return Err(WebError::Status(status.as_u16()));
        }
        read(answer.into_body()).await.map(Answer::Document)
    }

    async fn connect(&self, site: &ServerName) -> Result<TlsStream<TcpStream>, WebError> {
        let host = site.host().trim_start_matches('[').trim_end_matches(']');
        let port = site.port().unwrap_or(443);
        let tls_name = TlsName::try_from(host.to_owned()).map_err(not_reached)?;
        let addresses = self.resolver.resolve(host, port).await;
        let addresses = addresses.map_err(|error| WebError::NoAddress(error.to_string()))?;
        let mut last = WebError::NoAddress(format!("{host} has none"));
        for address in addresses.into_iter().take(ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.tls.connect(tls_name, stream).await.map_err(not_reached),
                Err(error) => last = not_reached(error),
            }
        }
        Err(last)
    }
}

async fn read(body: Incoming) -> Result<Bytes, WebError> {
    let read = Limited::new(body, BYTES).collect().await;
    let read = read.map_err(
        |error| match error.downcast::<http_body_util::LengthLimitError>() {
            Ok(_) => WebError::TooLarge,
            Err(error) => not_reached(error),
        },
    )?;
    Ok(read.to_bytes())
}

fn not_reached(error: impl fmt::Display) -> WebError {
    WebError::NotReached(error.to_string())
}

/// The path of a redirect that stays on the site.
fn path_within(site: &ServerName, location: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let stays = match uri.authority() {
        None => true,
        Some(authority) => {
            uri.scheme() == Some(&Scheme::HTTPS) && authority.as_str().eq_ignore_ascii_case(site.as_str())
        }
    };
    let path = uri.path_and_query()?.as_str();
    (stays && path.starts_with('/')).then(|| path.to_owned())
}

#[cfg(test)]
mod tests;
