//! A web of one site on the loopback, with an authority of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Leads every host to one address.
#[derive(Debug)]
struct Always(SocketAddr);

impl Resolver for Always {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, std::io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Ok(vec![self.0]) })
    }
}

/// A site called `a.example` that gives these bytes for a path and closes.
async fn web_of(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> HttpsClient {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = HttpsClient::through(Always(listener.local_addr().unwrap()), roots).unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let _ = stream.write_all(&answer(path)).await;
            let _ = stream.shutdown().await;
        }
    });
    web
}

fn document(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn redirect(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

async fn get(web: &HttpsClient, path: &str) -> Result<Bytes, WebError> {
    web.get(<&ServerName>::try_from("a.example").unwrap(), path).await
}

#[tokio::test]
async fn a_document_is_fetched_and_a_site_may_redirect_within_itself() {
    let web = web_of(|path| match path {
        "/a" => redirect("/b"),
        "/b" => redirect("https://A.example/c?d"),
        "/c?d" => document("here"),
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
    .await;
    assert_eq!(get(&web, "/a").await.unwrap(), "here");
    assert_eq!(get(&web, "/z").await, Err(WebError::Status(404)));
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let elsewhere = [
        "https://b.example/a",
        "http://a.example/a",
        "https://a.example:444/a",
        "//b.example/a",
        "https://a.example@b.example/a",
        "",
        "b",
    ];
    for location in elsewhere {
        let web = web_of(move |_| redirect(location)).await;
        let refused = get(&web, "/a").await;
        assert!(
            matches!(refused, Err(WebError::Redirected(_))),
            "{location}: {refused:?}"
        );
    }
    let web = web_of(|_| redirect("/a")).await;
    assert!(
        matches!(get(&web, "/a").await, Err(WebError::Redirected(_))),
        "a circle"
    );
}

#[tokio::test]
async fn size_is_bounded_with_and_without_a_length() {
    let large = "x".repeat(BYTES + 1);
    let web = web_of(move |path| match path {
        "/said" => document(&large),
        "/fits" => document(&large[1..]),
        _ => format!("HTTP/1.1 200 OK\r\n\r\n{large}").into_bytes(),
    })
    .await;
    assert_eq!(get(&web, "/said").await, Err(WebError::TooLarge));
    assert_eq!(get(&web, "/unsaid").await, Err(WebError::TooLarge));
    assert_eq!(get(&web, "/fits").await.unwrap().len(), BYTES);
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(4 * BYTES));
    let web = web_of(move |_| head.clone().into_bytes()).await;
    assert!(matches!(get(&web, "/a").await, Err(WebError::NotReached(_))));
}

#[tokio::test]
async fn a_certificate_must_be_of_the_name_and_of_an_authority() {
    let web = web_of(|_| document("here")).await;
    let other = web.get(<&ServerName>::try_from("b.example").unwrap(), "/").await;
    assert!(matches!(other, Err(WebError::NotReached(_))), "{other:?}");
    let strict = HttpsClient {
        tls: HttpsClient::public().unwrap().tls,
        ..web
    };
    let unknown = get(&strict, "/").await;
    assert!(matches!(unknown, Err(WebError::NotReached(_))), "{unknown:?}");
}
