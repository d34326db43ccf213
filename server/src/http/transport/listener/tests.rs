//! The listener over real sockets, spoken to byte by byte.

use std::path::Path;

use axum::routing::{get, post};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Setting;
use crate::http::transport::client_address::ClientAddress;
use crate::http::transport::tls::TlsFiles;

/// A listener at work, and the way to stop it.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

fn options() -> ListenerOptions {
    ListenerOptions {
        connections: 100,
        connections_per_address: 100,
        request_head: Duration::from_secs(30),
        stalled: Duration::from_secs(30),
        rests_after: Duration::from_secs(30),
        drain: Duration::from_secs(30),
        trusted_proxies: TrustedProxies::new(&Setting::read("127.0.0.1").map(|range| vec![range]).unwrap()),
    }
}

async fn start(options: ListenerOptions, certificates: Option<Arc<Certificates>>, router: Router) -> Running {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), certificates, options)
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(listener.serve(router, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        stop,
        served,
    }
}

fn router() -> Router {
    Router::new()
        .route(
            "/length",
            post(|body: axum::body::Bytes| async move { body.len().to_string() }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
        .route(
            "/address",
            get(|client: ClientAddress| async move { client.0.to_string() }),
        )
        .route("/path", get(|| async { "here" }))
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_all(stream).await
}

async fn read_all(mut stream: impl AsyncReadExt + Unpin) -> String {
    let mut answer = Vec::new();
    // A peer that is gone without a farewell is gone all the same.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_larger_than_every_buffer_arrives() {
    let running = start(options(), None, router()).await;
    let size = 2 * 1024 * 1024;
    let mut request =
        format!("POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n")
            .into_bytes();
    request.resize(request.len() + size, b'x');
    let answer = ask(running.address, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(&size.to_string()),
        "{answer}"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let running = start(options(), None, router()).await;
    let request = "GET /path HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n\
                   GET /address HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = ask(running.address, request.as_bytes()).await;
    let statuses: Vec<_> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "404", "200"], "{answer}");
    assert!(answer.ends_with("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn a_trusted_proxy_tells_the_client() {
    let running = start(options(), None, router()).await;
    let request =
        "GET /address HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n";
    assert!(
        ask(running.address, request.as_bytes())
            .await
            .ends_with("198.51.100.9")
    );
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let options = ListenerOptions {
        request_head: Duration::from_millis(100),
        ..options()
    };
    let running = start(options, None, router()).await;
    for begun in ["", "GET /path HTTP/1.1\r\nHost:"] {
        let answer = ask(running.address, begun.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let running = start(options(), None, router()).await;
    let request = format!(
        "GET /path HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut status = [0; 12];
    if stream.read_exact(&mut status).await.is_ok() {
        assert_eq!(&status, b"HTTP/1.1 431");
    }
}

#[tokio::test]
async fn a_request_in_progress_is_answered_at_the_end() {
    let (entered, has_entered) = oneshot::channel::<()>();
    let (leave, may_leave) = oneshot::channel::<()>();
    let gates = Arc::new(std::sync::Mutex::new(Some((entered, may_leave))));
    let slow = move || async move {
        let (entered, may_leave) = gates.lock().unwrap().take().unwrap();
        entered.send(()).unwrap();
        may_leave.await.unwrap();
        "done"
    };
    let running = start(options(), None, router().route("/slow", get(slow))).await;
    let idle = TcpStream::connect(running.address).await.unwrap();
    let asked =
        tokio::spawn(async move { ask(running.address, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await });
    has_entered.await.unwrap();
    running.stop.send(()).unwrap();
    assert_eq!(read_all(idle).await, "", "an idle connection ends");
    assert!(!running.served.is_finished());
    leave.send(()).unwrap();
    assert!(asked.await.unwrap().ends_with("done"));
    running.served.await.unwrap();
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "the port is free again"
    );
}

/// A router whose `/wait` answers when told to, and what tells it.
fn waiting_router() -> (Router, Arc<tokio::sync::Notify>) {
    let answer = Arc::new(tokio::sync::Notify::new());
    let told = answer.clone();
    let wait = move || async move {
        told.notified().await;
        "waited"
    };
    (router().route("/wait", get(wait)), answer)
}

/// Asks for `/wait`, with more bytes after it, and returns when the connection rests.
async fn ask_and_rest(address: SocketAddr, more: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = [b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", more].concat();
    stream.write_all(&request).await.unwrap();
    while metrics::CONNECTIONS_RESTING.get() == 0 {
        tokio::task::yield_now().await;
    }
    stream
}

/// Everything about resting is one test: how many rest is counted for the whole process.
#[tokio::test]
async fn a_connection_that_rests_answers_as_any_other() {
    let options = ListenerOptions {
        rests_after: Duration::from_millis(5),
        ..options()
    };
    let (router, answer) = waiting_router();
    let running = start(options, None, router).await;

    // The answer comes while it rests, and the connection goes on.
    let mut stream = ask_and_rest(running.address, b"").await;
    answer.notify_one();
    let mut status = [0; 15];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    stream
        .write_all(b"GET /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let rest = read_all(stream).await;
    assert!(rest.contains("\r\n\r\nwaitedHTTP/1.1 200 OK"), "{rest}");
    assert!(rest.ends_with("here"), "{rest}");

    // What the client sends meanwhile, before or while it rests, is answered in turn.
    let next = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = ask_and_rest(running.address, next).await;
    let last = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(last).await.unwrap();
    answer.notify_one();
    let answers = read_all(stream).await;
    let statuses: Vec<_> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "200", "404"], "{answers}");

    // A client that goes away is noticed, and its answer is not made any more.
    let gone = ask_and_rest(running.address, b"").await;
    assert_eq!(
        Arc::strong_count(&answer),
        3,
        "the test, the router and the answer"
    );
    drop(gone);
    while Arc::strong_count(&answer) == 3 {
        tokio::task::yield_now().await;
    }

    // The end of the server lets it finish.
    let stream = ask_and_rest(running.address, b"").await;
    running.stop.send(()).unwrap();
    answer.notify_one();
    assert!(read_all(stream).await.ends_with("waited"));
    running.served.await.unwrap();
}

#[tokio::test]
async fn draining_has_an_end() {
    let (entered, has_entered) = oneshot::channel::<()>();
    let entered = Arc::new(std::sync::Mutex::new(Some(entered)));
    let endless = move || async move {
        entered.lock().unwrap().take().unwrap().send(()).unwrap();
        std::future::pending::<()>().await;
    };
    let options = ListenerOptions {
        drain: Duration::from_millis(50),
        ..options()
    };
    let running = start(options, None, router().route("/endless", get(endless))).await;
    let asked =
        tokio::spawn(async move { ask(running.address, b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await });
    has_entered.await.unwrap();
    running.stop.send(()).unwrap();
    running.served.await.unwrap();
    assert_eq!(asked.await.unwrap(), "");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let running = start(
        ListenerOptions {
            connections: 1,
            ..options()
        },
        None,
        router(),
    )
    .await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first
        .write_all(b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    first.read_exact(&mut [0; 12]).await.unwrap();
    let address = running.address;
    let request = b"GET /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut second = tokio::spawn(async move { ask(address, request).await });
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut second)
            .await
            .is_err()
    );
    drop(first);
    assert!(second.await.unwrap().starts_with("HTTP/1.1 200"));
}

/// Writes a fresh certificate for `localhost` and returns it.
fn write_certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("certificate.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// Asks over TLS, trusting one certificate; the answer, or none if the server has another.
async fn ask_over_tls(address: SocketAddr, trusted: &CertificateDer<'static>, alpn: &[u8]) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .ok()?;
    if alpn == b"h2" {
        return Some(ask_over_http2(stream).await);
    }
    stream
        .write_all(b"GET /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    Some(read_all(stream).await)
}

/// The first frame that a server sends after the connection preface: its settings.
async fn ask_over_http2(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    format!("frame type {}", frame[3])
}

#[tokio::test]
async fn certificates_are_reloaded_and_bad_ones_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        private_key: folder.path().join("key.pem"),
    };
    assert!(Certificates::load(files.clone()).is_err());
    let first = write_certificate(folder.path());
    let certificates = Arc::new(Certificates::load(files.clone()).unwrap());
    let running = start(options(), Some(certificates.clone()), router()).await;
    let ask = |trusted: &CertificateDer<'static>, alpn: &'static [u8]| {
        let trusted = trusted.clone();
        async move { ask_over_tls(running.address, &trusted, alpn).await }
    };
    assert!(ask(&first, b"http/1.1").await.unwrap().ends_with("here"));
    assert_eq!(ask(&first, b"h2").await.unwrap(), "frame type 4");

    let second = write_certificate(folder.path());
    assert!(ask(&second, b"http/1.1").await.is_none(), "not yet read");
    certificates.reload().unwrap();
    assert!(ask(&second, b"http/1.1").await.unwrap().ends_with("here"));
    assert!(ask(&first, b"http/1.1").await.is_none());

    std::fs::write(&files.certificate, "nonsense").unwrap();
    assert!(certificates.reload().is_err());
    assert!(ask(&second, b"http/1.1").await.unwrap().ends_with("here"));
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        private_key: folder.path().join("key.pem"),
    };
    let running = start(
        options(),
        Some(Arc::new(Certificates::load(files).unwrap())),
        router(),
    )
    .await;
    let silent = TcpStream::connect(running.address).await.unwrap();
    running.stop.send(()).unwrap();
    running.served.await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_told_so_and_others_are_not() {
    let options = ListenerOptions {
        connections: 100,
        connections_per_address: 2,
        trusted_proxies: TrustedProxies::default(),
        ..options()
    };
    let running = start(options, None, router()).await;
    let request = b"GET /path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream
            .write_all(b"POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{")
            .await
            .unwrap();
        held.push(stream);
    }
    let refused = read_all(TcpStream::connect(running.address).await.unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(
        refused.ends_with(r#""too many connections from your address now"}"#),
        "{refused}"
    );
    let body = refused.split_once("\r\n\r\n").unwrap().1;
    assert!(
        refused.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{refused}"
    );

    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut stream = elsewhere.connect(running.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    assert!(read_all(stream).await.starts_with("HTTP/1.1 200"));

    let mut first = held.pop().unwrap();
    first.write_all(b"12345678").await.unwrap();
    assert!(read_all(first).await.starts_with("HTTP/1.1 200"));
    // Its place is free as soon as its task has ended.
    loop {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let asked = stream.write_all(request).await;
        if asked.is_ok() && read_all(stream).await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}
