//! The homeserver under load: where it is and how it is reached.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::error::LoadError;

/// A homeserver on this machine.
#[derive(Debug)]
pub(crate) struct Target {
    /// Host and port as the URL has them, for the `Host` header.
    pub(crate) authority: String,
    /// What the host resolves to: loopback addresses only.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Present for `https` URLs.
    pub(crate) tls: Option<Tls>,
}

/// How to speak TLS to the target.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Trusts exactly the given authority.
    pub(crate) config: Arc<ClientConfig>,
    /// The name that the server's certificate has to carry.
    pub(crate) name: ServerName<'static>,
}

impl Target {
    /// Resolves a base URL such as `http://127.0.0.1:8008`. `ca` is the PEM file of the authority that an
    /// `https` target's certificate is checked against.
    ///
    /// Fails for a URL it cannot read and for every host that is not loopback only.
    pub(crate) fn new(url: &str, ca: Option<&Path>) -> Result<Self, LoadError> {
        let (authority, host, port, encrypted) = split(url)?;
        let addresses: Vec<SocketAddr> = (host.as_str(), port)
            .to_socket_addrs()
            .map_err(LoadError::io(format!("resolving {host}")))?
            .collect();
        if addresses.is_empty() || addresses.iter().any(|address| !address.ip().is_loopback()) {
            return Err(LoadError::NotLoopback(authority));
        }
        let tls = match (encrypted, ca) {
            (false, _) => None,
            (true, Some(ca)) => Some(Tls::new(&host, ca)?),
            (true, None) => return Err(LoadError::Usage("an https target needs --ca FILE".into())),
        };
        Ok(Self {
            authority,
            addresses,
            tls,
        })
    }
}

impl Tls {
    fn new(host: &str, ca: &Path) -> Result<Self, LoadError> {
        let unusable = |why: String| LoadError::Usage(format!("{}: {why}", ca.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// Authority, host, port and whether it is `https`.
fn split(url: &str) -> Result<(String, String, u16, bool), LoadError> {
    let malformed = || LoadError::Usage(format!("{url}: expected http://HOST:PORT or https://HOST:PORT"));
    let (rest, encrypted) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Err(malformed()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| malformed())?),
        _ => (authority, if encrypted { 443 } else { 80 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(malformed());
    }
    Ok((authority.to_owned(), host.to_owned(), port, encrypted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_accepted_in_every_spelling() {
        for url in [
            "http://127.0.0.1:8008",
            "http://127.9.9.9",
            "http://[::1]:8008/",
            "http://localhost:1",
        ] {
            Target::new(url, None).unwrap();
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for url in [
            "http://10.0.0.1:8008",
            "http://0.0.0.0:8008",
            "http://[2001:db8::1]:8008",
        ] {
            assert!(
                matches!(Target::new(url, None), Err(LoadError::NotLoopback(_))),
                "{url}"
            );
        }
        for url in [
            "127.0.0.1:8008",
            "ftp://127.0.0.1",
            "http://",
            "http://127.0.0.1:x",
            "http://a@127.0.0.1",
        ] {
            assert!(
                matches!(Target::new(url, None), Err(LoadError::Usage(_))),
                "{url}"
            );
        }
    }
}
