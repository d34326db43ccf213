//! Servers that know each other, over real sockets on the loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use maru::data_folder::Keys;
use maru::peers::OwnRecord;
use maru_federation::quic::BoundSocket;
use maru_protocol::SecretKey;

use crate::TestServer;

/// Seeds of TLS keys: one a server.
static SEED: AtomicU8 = AtomicU8::new(1);

impl TestServer {
    /// Opens a federation socket on a free port. Where it is.
    pub async fn open_federation(&self) -> SocketAddr {
        let socket = BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_address().unwrap();
        let tls_key = SecretKey::from_seed(&[SEED.fetch_add(1, Ordering::Relaxed); 32]);
        let own = OwnRecord {
            root: Keys::load_or_make(self.data().folder()).unwrap().root,
            tls_key: tls_key.public_key(),
            addresses: Vec::new(),
            retired: Vec::new(),
        };
        self.parts().peers.start(own, &tls_key, socket).await.unwrap();
        address
    }
}

/// Lets all servers reach each other.
pub async fn federate(servers: &[&TestServer]) {
    let mut addresses = Vec::new();
    for server in servers {
        addresses.push(server.open_federation().await);
    }
    for server in servers {
        for (other, address) in servers.iter().zip(&addresses) {
            let name = other.parts().identity.server_name.clone();
            server.parts().peers.book().add(name, vec![*address]);
        }
    }
}
