//! The kinds of value that are particular to this program.

use std::fmt;
use std::net::IpAddr;

use super::Setting;

/// Defines an enum whose variants are written as words.
macro_rules! words {
    ($(#[$about:meta])+ pub enum $name:ident { $($(#[$meaning:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$meaning])+ $variant,)+ }

        impl Setting for $name {
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("expected one of {}", [$($word),+].join(", "))),
                }
            }

            fn show(&self) -> Option<toml::Value> {
                let word = match self { $(Self::$variant => $word,)+ };
                Some(toml::Value::String(word.to_owned()))
            }
        }
    };
}

words! {
    /// Who may make an account.
    pub enum Registration {
        /// Anybody who reaches the server.
        Open = "open",
        /// Whoever has a registration token.
        Token = "token",
        /// Nobody; accounts are made by the admin. The one-time token of the first start works nevertheless.
        Closed = "closed",
    }
}

words! {
    /// How log lines are written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for collectors.
        Json = "json",
    }
}

words! {
    /// The least important level that is logged.
    pub enum LogLevel {
        /// Only what needs somebody's attention.
        Error = "error",
        /// And what may soon need it.
        Warn = "warn",
        /// And the course of things: starts, stops, changes by the admin.
        Info = "info",
        /// And every request.
        Debug = "debug",
        /// And everything else.
        Trace = "trace",
    }
}

words! {
    /// Where media lie.
    pub enum MediaStorage {
        /// In the data folder.
        Disk = "disk",
        /// In a bucket of storage that speaks the S3 protocol.
        S3 = "s3",
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Setting for Secret {
    fn read(text: &str) -> Result<Self, String> {
        String::read(text).map(Self)
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String("***".to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which database holds everything but media and keys.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// The embedded one, a file in the data folder.
    Sqlite,
    /// A PostgreSQL server, by URL. May hold a password.
    Postgres(String),
}

impl Setting for Database {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Self::Postgres(url.to_owned()))
            }
            _ => Err("expected sqlite, or a URL that starts with postgres://".to_owned()),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.to_string()))
    }
}

/// Never shows a password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

/// Never shows a password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL with the password between `user:` and `@`, or in the query, starred out.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let rest = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let query = query.map(|query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.contains("password") => format!("{name}=***"),
            _ => pair.to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{rest}{}", query.unwrap_or_default())
}

/// The address of a NATS server. May hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    text: String,
    server: async_nats::ServerAddr,
}

impl NatsAddress {
    /// The server.
    pub fn server(&self) -> async_nats::ServerAddr {
        self.server.clone()
    }
}

impl Setting for NatsAddress {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || "expected a URL such as nats://host:4222 or tls://host:4222".to_owned();
        if !text.starts_with("nats://") && !text.starts_with("tls://") {
            return Err(expected());
        }
        let server: async_nats::ServerAddr = text.parse().map_err(|_| expected())?;
        if server.host().is_empty() {
            return Err(expected());
        }
        let text = text.to_owned();
        Ok(Self { text, server })
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(without_password(&self.text)))
    }
}

/// Never shows a password.
impl fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.text))
    }
}

/// The address at which clients reach the server from outside, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The URL, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for BaseUrl {
    fn read(text: &str) -> Result<Self, String> {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or_default();
        let plain = |c: char| c.is_ascii_graphic() && !"?#@\"'<>\\".contains(c);
        if host.is_empty() || host.starts_with('/') || !host.chars().all(plain) {
            return Err("expected a URL such as https://chat.example.org".to_owned());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.0.clone()))
    }
}

/// A range of IP addresses in the notation `10.0.0.0/8`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// Whether the address lies in the range. An IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same_prefix(network.to_bits().into(), address.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_prefix(network.to_bits(), address.to_bits(), 128, self.bits)
            }
            _ => false,
        }
    }
}

/// Whether the first `bits` of two addresses of `width` bits are equal.
fn same_prefix(one: u128, other: u128, width: u32, bits: u8) -> bool {
    (one ^ other)
        .checked_shr(width - u32::from(bits).min(width))
        .unwrap_or(0)
        == 0
}

impl Setting for AddressRange {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || "expected addresses or ranges such as 10.0.0.0/8 or ::1".to_owned();
        let (network, bits) = text
            .split_once('/')
            .map_or((text, None), |(network, bits)| (network, Some(bits)));
        let network: IpAddr = network.parse().map_err(|_| expected())?;
        let network = network.to_canonical();
        let width = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(expected)?,
        };
        Ok(Self { network, bits })
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(format!("{}/{}", self.network, self.bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://maru:hunter2@db/maru",
            "postgres://maru:hun@ter2@db/maru?sslmode=require",
            "postgres://db/maru?user=maru&password=hunter2&sslpassword=hunter2",
        ] {
            let shown = Database::read(url).unwrap().to_string();
            assert!(!shown.contains("ter2"), "{shown}");
            assert!(shown.contains("***") && shown.contains("maru"), "{shown}");
        }
        assert_eq!(
            Database::read("postgres://maru@db/x").unwrap().to_string(),
            "postgres://maru@db/x"
        );
    }

    #[test]
    fn ranges_contain_what_they_say() {
        let range = |text| AddressRange::read(text).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(range("10.0.0.0/8").contains(address("10.255.3.4")));
        assert!(range("10.0.0.0/8").contains(address("::ffff:10.1.2.3")));
        assert!(!range("10.0.0.0/8").contains(address("11.0.0.1")));
        assert!(!range("10.0.0.0/8").contains(address("::1")));
        assert!(range("0.0.0.0/0").contains(address("8.8.8.8")));
        assert!(range("::/0").contains(address("2001:db8::1")));
        assert!(range("127.0.0.1").contains(address("127.0.0.1")));
        assert!(!range("127.0.0.1").contains(address("127.0.0.2")));
        for bad in ["10.0.0.0/33", "::1/129", "ten", "10.0.0.0/-1", ""] {
            assert!(AddressRange::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base_urls_are_checked() {
        assert_eq!(
            BaseUrl::read("https://a.example/").unwrap().as_str(),
            "https://a.example"
        );
        for bad in [
            "a.example",
            "https://",
            "https:///x",
            "https://a b",
            "ftp://a",
            "https://a?b",
        ] {
            assert!(BaseUrl::read(bad).is_err(), "{bad}");
        }
    }
}
