//! Lets peers in that dial us: as strangers first, a bounded number at the same time.

use std::sync::Arc;

use maru_protocol::wire::CloseCode;
use tokio::task::JoinSet;

use super::{connection, shared::Shared};
use crate::homeserver::Homeserver;
use crate::limits;
use crate::link::{Handshake, LinkError, Path, Transport};
use crate::peer::Role;
use crate::per_ip_limit::Places;

/// Accepts until the pool stops, then waits until every accepted connection has ended.
pub(super) async fn accept<H: Homeserver>(shared: Arc<Shared<H>>, transport: Arc<dyn Transport>) {
    let strangers = Places::new(limits::MAX_STRANGERS, limits::MAX_STRANGERS_OF_ONE_PLACE);
    let mut stopping = shared.registry.stopping.subscribe();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            handshake = transport.accept() => match handshake {
                Some(handshake) => {
                    connections.spawn(greet(shared.clone(), handshake, strangers.clone()));
                }
                None => break,
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Runs one connection from its handshake, which the transport bounds in number and time, to its end.
async fn greet<H: Homeserver>(shared: Arc<Shared<H>>, handshake: Handshake, strangers: Arc<Places>) {
    let link = match handshake.await {
        Ok(link) => link,
        Err(error) => {
            let turned_away = matches!(error, LinkError::TurnedAway);
            let reason = if turned_away { "turned_away" } else { "tls" };
            shared.registry.refused(reason);
            return tracing::debug!(%error, "a handshake failed");
        }
    };
    let path = link.path();
    let address = match path {
        Path::Memory => None,
        Path::Direct(address) => Some(address.ip()),
    };
    let Some(stranger) = strangers.take(address) else {
        shared.registry.refused("turned_away");
        return link.close(CloseCode::Overloaded, "too many are being greeted");
    };
    if link.peer_key() == shared.own_key {
        return link.close(CloseCode::WrongServer, "that is ourselves");
    }
    let ended = connection::run(shared, link, Role::Acceptor, Some(stranger)).await;
    tracing::debug!(%path, reason = ended.reason, "an accepted connection ended");
}
