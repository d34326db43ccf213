//! Servers that know each other, over real sockets on the loopback.

use std::net::SocketAddr;

use maru::data_folder::Keys;
use maru::peers::OwnRecord;
use maru_federation::quic::BoundSocket;

use crate::TestServer;

impl TestServer {
    /// Opens a federation socket on a free port, unless it is open already. Where it is.
    pub async fn open_federation(&self) -> SocketAddr {
        if let Some(address) = self.federation.get() {
            return *address;
        }
        let socket = BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let keys = Keys::load_or_make(self.data().folder()).unwrap();
        let own = OwnRecord::of(&keys, &[]);
        let address = self.parts().peers.lead(own, &keys.tls, socket).await.unwrap();
        *self.federation.get_or_init(|| address)
    }

    /// Says where another server is.
    pub fn knows(&self, other: &Self, address: SocketAddr) {
        let name = other.parts().identity.server_name.clone();
        self.parts().peers.servers.addresses().add(name, vec![address]);
    }
}

/// Lets all servers reach each other; those that have a socket keep it. Where they are, in order.
pub async fn federate(servers: &[&TestServer]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for server in servers {
        addresses.push(server.open_federation().await);
    }
    for server in servers {
        for (other, address) in servers.iter().zip(&addresses) {
            server.knows(other, *address);
        }
    }
    addresses
}

/// Lets a server that was started again and one that has gone on, at its address, reach each other.
pub async fn reunite(started: &TestServer, other: &TestServer, address: SocketAddr) {
    started.knows(other, address);
    other.knows(started, started.open_federation().await);
}
