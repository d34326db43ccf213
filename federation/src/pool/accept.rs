//! Lets peers in that dial us: as strangers first, a bounded number at the same time.

use std::sync::Arc;

use maru_protocol::wire::CloseCode;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{connection, shared::Shared};
use crate::{
    homeserver::Homeserver,
    limits,
    link::{Handshake, Transport},
    peer::Role,
};

/// Accepts until the pool stops, then waits until every accepted connection has ended.
pub(super) async fn accept<H: Homeserver>(shared: Arc<Shared<H>>, transport: Arc<dyn Transport>) {
    let strangers = Arc::new(Semaphore::new(limits::MAX_HANDSHAKES));
    let mut stopping = shared.registry.stopping.subscribe();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            handshake = transport.accept() => {
                let Some(handshake) = handshake else {
                    break;
                };
                // What finds no place is dropped, which turns it away.
                if let Ok(stranger) = strangers.clone().try_acquire_owned() {
                    connections.spawn(greet(shared.clone(), handshake, stranger));
                }
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn greet<H: Homeserver>(
    shared: Arc<Shared<H>>,
    handshake: Handshake,
    stranger: tokio::sync::OwnedSemaphorePermit,
) {
    let link = match handshake.await {
        Ok(link) => link,
        Err(error) => {
            tracing::debug!(%error, "a handshake failed");
            return;
        }
    };
    if link.peer_key() == shared.own_key {
        return link.close(CloseCode::WrongServer, "that is ourselves");
    }
    let path = link.path();
    let ended = connection::run(shared, link, Role::Acceptor, Some(stranger)).await;
    tracing::debug!(%path, reason = ended.reason, "an accepted connection ended");
}
