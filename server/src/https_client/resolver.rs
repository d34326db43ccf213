//! Where a name leads, and where it may lead.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use maru_protocol::record::Address;

/// Finds the addresses of a host.
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The addresses that may be connected to, the best first.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver, of whose answers only public addresses are used: a name that a stranger chose must not lead
/// into this machine or the networks behind it.
#[derive(Clone, Copy, Debug)]
pub struct PublicOnly;

impl Resolver for PublicOnly {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, port)).await?;
            Ok(found.filter(is_public).collect())
        })
    }
}

fn is_public(address: &SocketAddr) -> bool {
    Address::new(*address).is_some_and(Address::is_public)
}

#[cfg(test)]
mod tests {
    use crate::https_client::resolver::*;

    #[tokio::test]
    async fn names_of_internal_addresses_lead_nowhere() {
        for host in [
            "localhost",
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "::1",
            "::ffff:127.0.0.1",
        ] {
            let found = PublicOnly.resolve(host, 443).await.unwrap_or_default();
            assert!(found.is_empty(), "{host}: {found:?}");
        }
        let public = PublicOnly.resolve("8.8.8.8", 443).await.unwrap();
        assert_eq!(public, ["8.8.8.8:443".parse().unwrap()]);
    }
}
