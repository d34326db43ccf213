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
    open: watch::Sender<bool>,
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
        let (open, _) = watch::channel(true);
        let running = accept(listener, server, forgotten.clone(), open.subscribe());
        let running = tokio::spawn(running).abort_handle();
        Self {
            address,
            forgotten,
            open,
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

    /// From now on nothing passes at all, over new connections neither, until [`TcpRelay::open`].
    pub fn shut(&self) {
        self.open.send_replace(false);
        self.forget_connections();
    }

    /// Lets new connections work again.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    forgotten: watch::Sender<()>,
    open: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let forgotten = forgotten.subscribe();
        let mut open = open.clone();
        connections.spawn(async move {
            if open.wait_for(|open| *open).await.is_ok()
                && let Ok(server) = TcpStream::connect(server).await
            {
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
