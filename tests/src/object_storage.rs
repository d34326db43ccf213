//! An object storage that speaks as much of the S3 protocol as the server uses, in memory: it checks signatures and bodies,
//! takes uploads in parts, gives ranges, and fails when it is told to.

mod answers;
mod signature;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use maru::config::{Config, MediaStorage, Setting};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use answers::{complete, cut_short, described, full, given, refused};

/// The one bucket.
pub const BUCKET: &str = "media-of-tests";

/// Who may enter.
const ACCESS_KEY: &str = "AKIATESTS";

/// What signs requests.
pub const SECRET_KEY: &str = "a secret/that+signs";

/// Parts but the last have at least so many bytes, as S3 has it.
const LEAST_PART: usize = 5 << 20;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Asks for the head of an object.
    Head,
    /// Reads an object or part of one.
    Get,
    /// Stores an object.
    Put,
    /// Begins an upload in parts.
    Begin,
    /// Stores a part.
    Part,
    /// Makes an object of parts.
    Complete,
    /// Gives parts up.
    Abort,
    /// Removes an object.
    Delete,
}

/// How a request fails.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with a status, and nothing is done.
    Status(u16),
    /// The connection is cut before anything is done.
    CutBefore,
    /// It is done, and the connection is cut before it is answered.
    CutAfter,
    /// The answer breaks off in the middle.
    CutShort,
    /// It waits until [`ObjectStorage::go_on`].
    Held,
}

/// An object.
#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    etag: String,
}

#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<String, Stored>,
    /// Uploads in parts: the object that each is to become, and its parts.
    uploads: HashMap<String, (String, BTreeMap<u32, Stored>)>,
    begun: u32,
    faults: VecDeque<(Operation, Fault)>,
    counts: BTreeMap<Operation, usize>,
    refused: Vec<String>,
}

/// A running object storage; it ends when the value goes.
#[derive(Debug)]
pub struct ObjectStorage {
    /// Scheme, host and port.
    base: String,
    contents: Arc<Mutex<Contents>>,
    held: watch::Sender<bool>,
    /// Requests that have come and wait.
    holding: watch::Receiver<usize>,
    running: AbortHandle,
}

type Body = BoxBody<Bytes, io::Error>;

/// What all connections share.
#[derive(Clone)]
struct Service {
    host: Arc<str>,
    tls: Option<TlsAcceptor>,
    contents: Arc<Mutex<Contents>>,
    held: watch::Receiver<bool>,
    holding: watch::Sender<usize>,
}

impl ObjectStorage {
    /// An empty one.
    ///
    /// # Panics
    /// When the system gives no port.
    pub async fn start() -> Self {
        Self::start_by(None).await
    }

    /// An empty one over TLS, and its certificate in PEM, which is of no authority that anybody knows.
    ///
    /// # Panics
    /// When the system gives no port.
    pub async fn start_secure() -> (Self, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::start_by(Some(acceptor)).await, cert.pem())
    }

    async fn start_by(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (scheme, name) = match tls {
            None => ("http", "127.0.0.1"),
            Some(_) => ("https", "localhost"),
        };
        let host = format!("{name}:{port}");
        let base = format!("{scheme}://{host}");
        let contents = Arc::<Mutex<Contents>>::default();
        let (held, hold) = watch::channel(true);
        let (count, holding) = watch::channel(0);
        let service = Service {
            host: host.into(),
            tls,
            contents: Arc::clone(&contents),
            held: hold,
            holding: count,
        };
        let running = tokio::spawn(accept(listener, service)).abort_handle();
        Self {
            base,
            contents,
            held,
            holding,
            running,
        }
    }

    /// Has a server keep its media here.
    ///
    /// # Panics
    /// Never.
    pub fn configure(&self, config: &mut Config) {
        config.media.storage = MediaStorage::S3;
        config.media.endpoint = Some(Setting::read(&self.base).unwrap());
        config.media.bucket = Some(BUCKET.to_owned());
        config.media.prefix = Some("of/maru".to_owned());
        config.media.access_key = Some(ACCESS_KEY.to_owned());
        config.media.secret_key = Some(Setting::read(SECRET_KEY).unwrap());
    }

    /// The same as the text of a configuration file.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!(
            "[media]\nstorage = \"s3\"\nendpoint = \"{}\"\nbucket = \"{BUCKET}\"\nprefix = \"of/maru\"\n\
             access_key = \"{ACCESS_KEY}\"\nsecret_key = \"{SECRET_KEY}\"\n",
            self.base
        )
    }

    /// Has the next request of a kind fail; several are used in the order in which they were told.
    pub fn fail(&self, operation: Operation, fault: Fault) {
        self.contents().faults.push_back((operation, fault));
    }

    /// Faults that no request has met yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.contents().faults.len()
    }

    /// Waits until a request is held.
    ///
    /// # Panics
    /// When the storage is gone.
    pub async fn holds(&self) {
        self.holding.clone().wait_for(|count| *count > 0).await.unwrap();
    }

    /// Lets go what is held.
    pub fn go_on(&self) {
        self.held.send_replace(false);
    }

    /// The names of its objects that begin so, after the prefix of the configuration.
    #[must_use]
    pub fn names(&self, beginning: &str) -> Vec<String> {
        let beginning = format!("of/maru/{beginning}");
        let contents = self.contents();
        let names = contents
            .objects
            .keys()
            .filter(|name| name.starts_with(&beginning));
        names.map(|name| name["of/maru/".len()..].to_owned()).collect()
    }

    /// Bytes of these.
    #[must_use]
    pub fn bytes(&self, beginning: &str) -> u64 {
        let beginning = format!("of/maru/{beginning}");
        let contents = self.contents();
        let objects = contents
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with(&beginning));
        objects.map(|(_, object)| object.bytes.len() as u64).sum()
    }

    /// Puts an object there past the server.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let stored = stored(Bytes::copy_from_slice(bytes));
        self.contents().objects.insert(format!("of/maru/{name}"), stored);
    }

    /// Loses all objects.
    pub fn clear(&self) {
        self.contents().objects.clear();
    }

    /// Uploads in parts that are neither complete nor given up.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.contents().uploads.len()
    }

    /// How often something was asked for, failures included.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.contents().counts.get(&operation).copied().unwrap_or(0)
    }

    /// Why requests were refused that were wrong.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.contents().refused.clone()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap()
    }
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(listener: TcpListener, service: Service) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        connections.spawn(async move {
            let tls = service.tls.clone();
            let answer = service_fn(move |request| service.clone().answer(request));
            let http = http1::Builder::new();
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), answer).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), answer).await);
                    }
                }
            }
        });
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored(bytes: Bytes) -> Stored {
    let etag = format!("\"{}\"", &hex(&Sha256::digest(&bytes))[..32]);
    Stored { bytes, etag }
}

/// The value of a query's field.
fn field<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(field, _)| *field == name).map(|(_, value)| value)
}

impl Service {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let operation = match (&head.method, field(&query, "uploadId")) {
            (&Method::HEAD, _) => Operation::Head,
            (&Method::GET, _) => Operation::Get,
            (&Method::PUT, None) => Operation::Put,
            (&Method::PUT, Some(_)) => Operation::Part,
            (&Method::POST, None) => Operation::Begin,
            (&Method::POST, Some(_)) => Operation::Complete,
            (&Method::DELETE, Some(_)) => Operation::Abort,
            _ => Operation::Delete,
        };
        let fault = {
            let mut contents = self.contents.lock().unwrap();
            *contents.counts.entry(operation).or_default() += 1;
            let at = contents.faults.iter().position(|(meant, _)| *meant == operation);
            at.and_then(|at| contents.faults.remove(at))
                .map(|(_, fault)| fault)
        };
        match fault {
            Some(Fault::Status(status)) => return Ok(refused(status, "SlowDown")),
            Some(Fault::CutBefore) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Held) => {
                self.holding.send_modify(|count| *count += 1);
                let _ = self.held.wait_for(|held| !held).await;
            }
            _ => {}
        }
        if let Err(why) = signature::check(&head, &body, &self.host) {
            self.contents.lock().unwrap().refused.push(why);
            return Ok(refused(403, "SignatureDoesNotMatch"));
        }
        let answer = self.perform(operation, head.uri.path(), &query, &head.headers, body);
        match fault {
            Some(Fault::CutAfter) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::CutShort) => Ok(cut_short(answer).await),
            _ => Ok(answer),
        }
    }

    fn perform(
        &self,
        operation: Operation,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response<Body> {
        let Some(name) = path.strip_prefix(&format!("/{BUCKET}/")).map(str::to_owned) else {
            return refused(404, "NoSuchBucket");
        };
        let mut contents = self.contents.lock().unwrap();
        let upload = field(query, "uploadId").unwrap_or_default();
        match operation {
            Operation::Head | Operation::Get => match contents.objects.get(&name) {
                Some(object) => given(object, operation, headers),
                None => refused(404, "NoSuchKey"),
            },
            Operation::Put => {
                let object = stored(body);
                let answer = described(&object)
                    .body(full(StatusCode::OK, "").into_body())
                    .unwrap();
                contents.objects.insert(name, object);
                answer
            }
            Operation::Begin => {
                contents.begun += 1;
                let id = format!("upload{}", contents.begun);
                contents.uploads.insert(id.clone(), (name, BTreeMap::new()));
                let answer = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                full(StatusCode::OK, &answer)
            }
            Operation::Part => {
                let number = field(query, "partNumber").and_then(|number| number.parse().ok());
                let (Some(number), Some((_, parts))) = (number, contents.uploads.get_mut(upload)) else {
                    return refused(404, "NoSuchUpload");
                };
                let part = stored(body);
                let answer = described(&part)
                    .body(full(StatusCode::OK, "").into_body())
                    .unwrap();
                parts.insert(number, part);
                answer
            }
            Operation::Complete => complete(&mut contents, upload, &name, &body),
            Operation::Abort => match contents.uploads.remove(upload) {
                Some(_) => full(StatusCode::NO_CONTENT, ""),
                None => refused(404, "NoSuchUpload"),
            },
            Operation::Delete => {
                contents.objects.remove(&name);
                full(StatusCode::NO_CONTENT, "")
            }
        }
    }
}
