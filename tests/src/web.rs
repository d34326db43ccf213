//! A web of our own: domains whose web servers are test servers, over TLS on the loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use maru::http::transport::listener::{Listener, ListenerOptions};
use maru::http::transport::tls::{Certificates, TlsFiles};
use maru::https_client::{HttpsClient, Resolver};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;

use crate::TestServer;

/// Where the domains of a [`TestWeb`] lead.
#[derive(Clone, Debug, Default)]
struct Sites {
    addresses: BTreeMap<String, SocketAddr>,
    asked: Arc<AtomicUsize>,
}

impl Resolver for Sites {
    fn resolve<'a>(&'a self, host: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(self.addresses.get(host).copied().into_iter().collect()) })
    }
}

/// Domains and their certificates.
#[derive(Debug)]
pub struct TestWeb {
    sites: Sites,
    roots: RootCertStore,
}

impl TestWeb {
    /// A web in which these servers answer for the domains that they are called after.
    pub async fn of(servers: &[&TestServer]) -> Self {
        let mut web = Self {
            sites: Sites::default(),
            roots: RootCertStore::empty(),
        };
        for server in servers {
            web.publish(server).await;
        }
        web
    }

    /// Has one more server answer for its domain, in the place of another one.
    pub async fn publish(&mut self, server: &TestServer) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([server.name().to_owned()]).unwrap();
        self.roots.add(cert.der().clone()).unwrap();
        let folder = server.data().folder();
        let files = TlsFiles {
            certificate: folder.join("certificate.pem"),
            private_key: folder.join("certificate.key"),
        };
        std::fs::write(&files.certificate, cert.pem()).unwrap();
        std::fs::write(&files.private_key, signing_key.serialize_pem()).unwrap();
        let certificates = Arc::new(Certificates::load(files).unwrap());
        let options = ListenerOptions::configured(&server.parts().config);
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Some(certificates), options);
        let listener = listener.await.unwrap();
        self.sites
            .addresses
            .insert(server.name().to_owned(), listener.local_addr().unwrap());
        let router = maru::http::router(Arc::clone(server.parts()));
        tokio::spawn(listener.serve(router, std::future::pending()));
    }

    /// Has a server look up domains here.
    ///
    /// # Panics
    /// When it has looked up domains elsewhere.
    pub fn show(&self, server: &TestServer) {
        let web = HttpsClient::through(self.sites.clone(), self.roots.clone()).unwrap();
        server.parts().peers.servers.look_up_through(web);
    }

    /// How often anybody has asked where a domain is.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.sites.asked.load(Ordering::Relaxed)
    }
}
