//! Connections to the object storage that the admin names, kept and used again. Unlike the web's it may be anywhere, this
//! machine included, and without TLS where the admin says `http://`.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::dial::Dial;

/// Time for a request to be sent and answered, up to the head of the answer.
const ANSWERED: Duration = Duration::from_secs(60);

/// How long the next bytes of an answer may take.
const STALLED: Duration = Duration::from_secs(30);

/// How long a connection is kept that is not used.
const IDLE: Duration = Duration::from_secs(60);

/// The way to an object storage.
#[derive(Clone)]
pub struct StorageConnector {
    client: Client<Dial, HttpRequestBody>,
}

impl fmt::Debug for StorageConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageConnector")
    }
}

impl StorageConnector {
    /// A way that trusts these authorities, or where there are none those of the web.
    ///
    /// # Errors
    /// When one of them is no certificate, or the TLS library cannot be set up.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority)?;
        }
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(Dial::new(TlsConnector::from(Arc::new(config))));
        Ok(Self { client })
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = timeout(ANSWERED, self.client.request(request)).await;
        let late = |error| HttpError::new(HttpErrorKind::Timeout, error);
        let answer = answer.map_err(late)?.map_err(|error| {
            let kind = match error.is_connect() {
                true => HttpErrorKind::Connect,
                // Whether it was done is not known.
                false => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, error)
        })?;
        let (head, body) = answer.into_parts();
        let body = Unstalled {
            body,
            stalled: Box::pin(sleep(STALLED)),
        };
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

impl HttpService for StorageConnector {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.send(request))
    }
}

impl HttpConnector for StorageConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The body of an answer, which breaks off when nothing comes for some time.
struct Unstalled {
    body: Incoming,
    stalled: Pin<Box<Sleep>>,
}

impl Body for Unstalled {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.stalled.as_mut().reset(tokio::time::Instant::now() + STALLED);
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        self.stalled.as_mut().poll(context).map(|()| {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            Some(Err(HttpError::new(HttpErrorKind::Timeout, late)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
