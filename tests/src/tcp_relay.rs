//! A way to a TCP server on which connections can go dead without either side being told, as behind a router that forgets them.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The way to one server. It ends when the value goes.
#[derive(Debug)]
pub struct TcpRelay {
    address: SocketAddr,
    forgotten: watch::Sender<()>,
    running: AbortHandle,
}

impl TcpRelay {
    /// A relay to a server's address.
    ///
    /// # Panics
    /// When the system gives no port.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (forgotten, _) = watch::channel(());
        let running = tokio::spawn(accept(listener, server, forgotten.clone())).abort_handle();
        Self {
            address,
            forgotten,
            running,
        }
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes over the connections that there are, and both sides believe in them. New ones work.
    pub fn forget_connections(&self) {
        self.forgotten.send_replace(());
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, forgotten: watch::Sender<()>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let forgotten = forgotten.subscribe();
        connections.spawn(async move {
            if let Ok(server) = TcpStream::connect(server).await {
                pass(client, server, forgotten).await;
            }
        });
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, mut forgotten: watch::Receiver<()>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        // Both stay open for as long as the relay is there.
        _ = forgotten.changed() => std::future::pending().await,
    }
}
