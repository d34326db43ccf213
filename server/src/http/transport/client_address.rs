//! Where a request really comes from, also behind proxies.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;

use crate::config::AddressRange;
use crate::limits::ClientNetwork;

/// The address of the client, for limits and logs.
///
/// The listener puts it into every request. A request made in process, without a listener, comes from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address under which attempts are counted.
    pub fn for_limits(self) -> ClientNetwork {
        ClientNetwork::of(self.0)
    }
}

impl Default for ClientAddress {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[AddressRange]>);

impl TrustedProxies {
    /// Believes the addresses in these ranges.
    pub fn new(ranges: &[AddressRange]) -> Self {
        Self(ranges.into())
    }

    /// Whether an address is a trusted proxy's.
    pub(in crate::http) fn include(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// The client behind a connection from `peer`.
    ///
    /// Every proxy adds on the right of `X-Forwarded-For` whom it was connected from. So the list is read from the
    /// right for as long as the word comes from a trusted proxy; what lies beyond anybody may have written.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        if !self.include(client) {
            return ClientAddress(client);
        }
        for value in headers.get_all("x-forwarded-for").iter().rev() {
            // Bytes, not text: what a client wrote on the left may be anything, and hides nobody on the right.
            for claimed in value.as_bytes().rsplit(|byte| *byte == b',') {
                let claimed = std::str::from_utf8(claimed).ok();
                let Some(address) = claimed.and_then(|claimed| address_of(claimed.trim())) else {
                    return ClientAddress(client);
                };
                client = address.to_canonical();
                if !self.include(client) {
                    return ClientAddress(client);
                }
            }
        }
        ClientAddress(client)
    }
}

/// An address, with or without a port.
fn address_of(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use crate::config::Setting;
    use crate::http::transport::client_address::*;

    fn client(peer: &str, headers: &[&str]) -> String {
        let ranges: Vec<AddressRange> = Setting::read("10.0.0.0/8, ::1").unwrap();
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(
                "x-forwarded-for",
                HeaderValue::from_bytes(header.as_bytes()).unwrap(),
            );
        }
        TrustedProxies::new(&ranges)
            .client(peer.parse().unwrap(), &map)
            .0
            .to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.9"]), "192.0.2.1");
        assert_eq!(client("192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn a_proxy_is_believed_about_its_own_neighbour_only() {
        assert_eq!(client("10.0.0.1", &["198.51.100.9"]), "198.51.100.9");
        assert_eq!(client("10.0.0.1", &["203.0.113.5, 198.51.100.9"]), "198.51.100.9");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.5, 198.51.100.9, 10.2.0.1"]),
            "198.51.100.9"
        );
        assert_eq!(
            client("10.0.0.1", &["203.0.113.5", "198.51.100.9", "10.2.0.1"]),
            "198.51.100.9"
        );
        assert_eq!(client("::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.9:80"]), "198.51.100.9");
    }

    #[test]
    fn nonsense_ends_the_chain() {
        assert_eq!(client("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.9, , 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn nonsense_on_the_left_hides_nobody_on_the_right() {
        assert_eq!(client("10.0.0.1", &["\u{e9}, 198.51.100.9"]), "198.51.100.9");
        assert_eq!(client("10.0.0.1", &["\u{e9}", "198.51.100.9"]), "198.51.100.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.9, \u{e9}"]), "10.0.0.1");
    }
}
