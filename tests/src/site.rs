//! Real servers that know each other by their configuration, so that they find each other again after a restart.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};

use maru::data_folder::Keys;
use ruma::OwnedServerName;

use crate::{Data, Engine, TestProcess};

/// A homeserver before its first start: its name and its address for others are known, so that those can be told.
#[derive(Debug)]
pub struct Site {
    /// Its name.
    pub name: OwnedServerName,
    /// Where it will listen for other homeservers, after every start.
    pub address: SocketAddr,
    data: Data,
}

impl Site {
    /// A homeserver with empty data and new keys.
    ///
    /// # Panics
    /// When there is no place for its data.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        let data = Data::new(engine);
        let keys = Keys::load_or_make(data.folder()).unwrap();
        Self {
            name: keys.server_name(None).unwrap(),
            address: free_udp_port(),
            data,
        }
    }

    /// Starts it with others that it knows, each by name and address, and with further lines of configuration.
    ///
    /// # Panics
    /// When it does not start, with its log.
    pub async fn start(self, peers: &[(&OwnedServerName, SocketAddr)], configuration: &str) -> TestProcess {
        let mut text = configuration.to_owned();
        for (name, address) in peers {
            let _ = write!(
                text,
                "\n[[federation.peers]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n"
            );
        }
        let file = self.data.folder().join("maru.toml");
        std::fs::write(&file, text).unwrap();
        let (file, address) = (file.display().to_string(), self.address.to_string());
        TestProcess::start_on(self.data, &["--config", &file, "--federation-listen", &address]).await
    }
}

/// Two servers that know each other, started.
///
/// # Panics
/// When one does not start, with its log.
pub async fn two_sites(engines: [Engine; 2], configuration: &str) -> [TestProcess; 2] {
    let [a, b] = engines.map(Site::new);
    let ((name_a, address_a), (name_b, address_b)) =
        ((a.name.clone(), a.address), (b.name.clone(), b.address));
    let a = a.start(&[(&name_b, address_b)], configuration).await;
    let b = b.start(&[(&name_a, address_a)], configuration).await;
    [a, b]
}

/// A port that nobody has now. A server that is killed and started again needs one that stays the same.
fn free_udp_port() -> SocketAddr {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}
