//! Other homeservers as the configuration names them: whom we know, and whom we let in.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use maru_protocol::record::{Address, MAX_ADDRESSES};
use maru_protocol::{PublicKey, ServerKind};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;

use super::Setting;

/// Where a homeserver can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An address.
    Fixed(SocketAddr),
    /// A host that DNS knows, looked up each time it is dialled, and a port.
    Host(String, u16),
}

/// A text that names no place to dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address with a port, such as 192.0.2.1:8448, [2001:db8::1]:8448 or chat.example.org:8448"
)]
pub struct NotAnAddress(String);

impl FromStr for PeerAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.to_owned());
        let address = match text.parse::<SocketAddr>() {
            Ok(address) => Self::Fixed(address),
            Err(_) => {
                let name = ServerName::parse(text).map_err(|_| wrong())?;
                let port = name.port().ok_or_else(wrong)?;
                if name.is_ip_literal() {
                    return Err(wrong());
                }
                Self::Host(name.host().to_ascii_lowercase(), port)
            }
        };
        match address {
            Self::Fixed(address) if address.port() == 0 => Err(wrong()),
            Self::Host(_, 0) => Err(wrong()),
            address => Ok(address),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Fixed(address)
    }
}

impl Setting for PeerAddress {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: NotAnAddress| error.to_string())
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.to_string()))
    }
}

/// A homeserver that the admin vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredPeer {
    /// Its name.
    pub name: OwnedServerName,
    /// Where to dial it, the best first, besides what its own record says. With none it is only let in.
    pub addresses: Vec<PeerAddress>,
    /// Its root key: the one that its name spells, or the pin of a domain.
    pub key: PublicKey,
}

impl ConfiguredPeer {
    /// A peer whose key is given for a domain, and spelt by a key name.
    ///
    /// # Errors
    ///
    /// A sentence fragment that says what does not fit.
    pub fn new(name: &str, addresses: &[String], key: Option<&str>) -> Result<Self, String> {
        let name = server_name(name)?;
        let pin = key.map(PublicKey::from_base64).transpose();
        let pin = pin.map_err(|cause| format!("the `key` of {name} is no root key: {cause}"))?;
        let key = match (ServerKind::of(&name), pin) {
            (Ok(ServerKind::Key(own)), Some(pin)) if own != pin => {
                return Err(format!("the `key` of {name} is not the one that its name spells"));
            }
            (Ok(ServerKind::Key(own)), _) => own,
            (_, Some(pin)) => pin,
            (_, None) => return Err(format!("{name} is a domain and needs its root key as `key`")),
        };
        if addresses.len() > MAX_ADDRESSES {
            return Err(format!("{name} has more than {MAX_ADDRESSES} addresses"));
        }
        let addresses: Result<_, _> = addresses.iter().map(|address| address.parse()).collect();
        let addresses =
            addresses.map_err(|cause: NotAnAddress| format!("in `addresses` of {name}, {cause}"))?;
        Ok(Self { name, addresses, key })
    }
}

/// The configured homeservers, one a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfiguredPeers(Vec<ConfiguredPeer>);

impl ConfiguredPeers {
    /// The peer of a name.
    pub fn get(&self, name: &ServerName) -> Option<&ConfiguredPeer> {
        self.0.iter().find(|peer| peer.name == name)
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &ConfiguredPeer> {
        self.0.iter()
    }

    /// Adds a peer, or takes it in the place of the one that has its name.
    pub fn set(&mut self, peer: ConfiguredPeer) {
        self.0.retain(|other| other.name != peer.name);
        self.0.push(peer);
    }
}

/// A peer as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    addresses: Vec<String>,
    key: Option<String>,
}

/// The entries of the file as one line of TOML; nothing for no peers.
#[derive(Deserialize)]
struct Entries {
    peers: Vec<Entry>,
}

/// A list of tables. In a variable it is the same list as TOML on one line.
impl Setting for ConfiguredPeers {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let entries: Entries = toml::from_str(&format!("peers = {text}")).map_err(|error| {
            let cause = error.message().replace('\n', " ");
            format!("expected tables with `name`, `addresses` and `key`: {cause}")
        })?;
        let mut peers = Self::default();
        for Entry { name, addresses, key } in entries.peers {
            let peer = ConfiguredPeer::new(&name, &addresses, key.as_deref())?;
            if peers.get(&peer.name).is_some() {
                return Err(format!("{name} is there twice"));
            }
            peers.0.push(peer);
        }
        Ok(peers)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Array(self.0.iter().map(shown).collect()))
    }
}

/// A peer as it could stand in the file.
fn shown(peer: &ConfiguredPeer) -> toml::Value {
    let text = |value: &dyn fmt::Display| toml::Value::String(value.to_string());
    let addresses = peer.addresses.iter().map(|address| text(address)).collect();
    let fields = [
        ("name", text(&peer.name)),
        ("addresses", toml::Value::Array(addresses)),
        ("key", text(&peer.key)),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    toml::Value::Table(fields.collect())
}

/// The name of a homeserver.
impl Setting for OwnedServerName {
    fn read(text: &str) -> Result<Self, String> {
        server_name(text)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.to_string()))
    }
}

/// An address that others are told to dial.
impl Setting for Address {
    fn read(text: &str) -> Result<Self, String> {
        let address = SocketAddr::read(text)?;
        Self::new(address).ok_or_else(|| format!("{address} is no address that others could dial"))
    }

    fn show(&self) -> Option<toml::Value> {
        self.get().show()
    }
}

fn server_name(text: &str) -> Result<OwnedServerName, String> {
    let name = ServerName::parse(text).map_err(|_| format!("`{text}` is not a server name"))?;
    match ServerKind::of(&name) {
        Ok(_) => Ok(name),
        Err(cause) => Err(format!("`{text}` is not a server name: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maru_protocol::SecretKey;
    use maru_protocol::server_name::key_name;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public_key()
    }

    #[test]
    fn peers_are_read_and_shown_alike() {
        let (name, pin) = (key_name(&key(1)).unwrap(), key(2));
        let text = format!(
            "[{{name = \"{name}\", addresses = [\"127.0.0.1:1\", \"B.example:2\"]}}, {{name = \"b.example\", key = \"{pin}\"}}]"
        );
        let peers = ConfiguredPeers::read(&text).unwrap();
        assert_eq!(peers.iter().count(), 2);
        assert_eq!(peers.get(&name).unwrap().key, key(1));
        let host = PeerAddress::Host("b.example".to_owned(), 2);
        assert_eq!(peers.get(&name).unwrap().addresses[1], host);
        let domain = ServerName::parse("b.example").unwrap();
        assert_eq!(peers.get(&domain).unwrap().key, pin);
        let shown = peers.show().unwrap().to_string();
        assert_eq!(ConfiguredPeers::read(&shown).unwrap(), peers);
        assert_eq!(ConfiguredPeers::read("").unwrap(), ConfiguredPeers::default());
    }

    #[test]
    fn what_does_not_fit_is_said_on_one_line() {
        let (name, own, other) = (key_name(&key(1)).unwrap(), key(1), key(2));
        let own_key = format!("[{{name = \"{name}\", key = \"{own}\"}}]");
        assert!(ConfiguredPeers::read(&own_key).is_ok());
        let wrong = [
            (
                format!("[{{name = \"{name}\", key = \"{other}\"}}]"),
                "its name spells",
            ),
            (
                format!("[{{name = \"{name}\"}}, {{name = \"{name}\"}}]"),
                "is there twice",
            ),
            (
                format!("[{{name = \"{name}\", addresses = [\"127.0.0.1:0\"]}}]"),
                "is no address with a port",
            ),
            ("[{name = \"b.example\"}]".to_owned(), "needs its root key"),
            (
                "[{name = \"b.example\", key = \"AAAA\"}]".to_owned(),
                "is no root key",
            ),
            ("[{name = \"x.maru.alt\"}]".to_owned(), "is not a server name"),
            ("[{name = \"not a name\"}]".to_owned(), "is not a server name"),
            ("[{addresses = []}]".to_owned(), "missing field `name`"),
            ("[{name = \"a\", port = 1}]".to_owned(), "unknown field `port`"),
            (
                format!("[{{name = \"{name}\", addresses = [\"here\"]}}]"),
                "is no address with a port",
            ),
            ("[{name = \"a\", addresses = [1]}]".to_owned(), "expected tables"),
            ("nonsense".to_owned(), "expected tables"),
        ];
        for (text, expected) in wrong {
            let error = ConfiguredPeers::read(&text).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn an_address_for_others_can_be_dialled() {
        assert!(Address::read("192.0.2.1:8448").is_ok());
        for bad in ["0.0.0.0:8448", "192.0.2.1:0", "192.0.2.1", "[::]:1"] {
            assert!(Address::read(bad).is_err(), "{bad}");
        }
    }
}
