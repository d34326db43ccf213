//! What the pool of connections asks of this server.

use std::net::IpAddr;
use std::sync::Arc;

use maru_federation::Homeserver;
use maru_federation::homeserver::{Claim, Failure, Finished, LogPage, Parts, Rejection};
use maru_protocol::cursor::LogId;
use maru_protocol::record::{SignedRecord, VerifiedRecord};
use maru_protocol::wire::CloseCode;
use maru_protocol::wire::answer::Refused;
use maru_protocol::wire::datagram::Datagram;
use maru_protocol::wire::log::{Cursor, LogItem};
use maru_protocol::wire::message::{Received, RoomExtremities};
use maru_protocol::wire::request::Request;
use ruma::ServerName;

use super::edus::typing_and_presence::EphemeralEdus;
use super::identity::keyring::NotKept;
use super::identity::known_servers::KnownServers;
use super::inbound::inbox_worker::InboxWorker;
use super::inbound::log_receiver::LogReceiver;
use super::outgoing::OutgoingLog;
use super::request_handlers::RequestHandlers;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::store::Store;

/// The server as the pool of connections calls it; each call goes to the object whose it is.
#[derive(Debug)]
pub(super) struct PoolAdapter {
    pub(super) identity: Arc<Identity>,
    pub(super) clock: Arc<Clock>,
    pub(super) store: Arc<Store>,
    pub(super) servers: Arc<KnownServers>,
    pub(super) own_record: SignedRecord,
    pub(super) receiver: Arc<LogReceiver>,
    pub(super) worker: Arc<InboxWorker>,
    pub(super) outgoing: Arc<OutgoingLog>,
    pub(super) handlers: Arc<RequestHandlers>,
    pub(super) ephemeral: Arc<EphemeralEdus>,
}

fn failure(refusal: impl Into<Refusal>) -> Failure {
    Failure(refusal.into().in_full())
}

fn rejection(not_kept: &NotKept) -> Rejection {
    let code = match not_kept {
        NotKept::Invalid(_) => CloseCode::NotProven,
        NotKept::Unproven(_) | NotKept::NotLookedUp(..) | NotKept::TooMany => CloseCode::Unavailable,
        NotKept::KeyChanged(_) => CloseCode::KeyChanged,
        NotKept::Conflict(_) => CloseCode::RecordConflict,
    };
    Rejection::new(code, not_kept.to_string())
}

impl PoolAdapter {
    /// Keeps the record of a server at `address` that has proven to hold its TLS key.
    async fn keep(&self, record: &VerifiedRecord, address: Option<IpAddr>) -> Result<(), Rejection> {
        match self.servers.keep_proven(record, address).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_kept)) => Err(rejection(&not_kept)),
            Err(refusal) => Err(Rejection::new(CloseCode::Unavailable, refusal.to_string())),
        }
    }
}

impl Homeserver for PoolAdapter {
    fn name(&self) -> &ServerName {
        self.identity.name()
    }

    fn own_record(&self) -> SignedRecord {
        self.own_record.clone()
    }

    fn log_id(&self) -> LogId {
        self.store.log.id()
    }

    fn keeps_connected(&self, peer: &ServerName) -> bool {
        self.servers.sharing().contains(peer)
    }

    async fn judge(&self, claim: Claim) -> Result<(), Rejection> {
        if !self.servers.is_allowed(&claim.name) {
            return Err(Rejection::new(
                CloseCode::Denied,
                "this server does not speak with yours",
            ));
        }
        let record = claim
            .record
            .verify()
            .map_err(|error| Rejection::new(CloseCode::NotProven, error.to_string()))?;
        if record.name != claim.name || record.tls_key != claim.tls_key {
            return Err(Rejection::new(
                CloseCode::NotProven,
                "the record is not of that name and connection",
            ));
        }
        if !record.is_current(self.clock.now_ms()) {
            return Err(Rejection::new(
                CloseCode::RecordOutdated,
                "the record has expired",
            ));
        }
        let address = claim.address.map(|address| address.ip());
        self.keep(&record, address).await?;
        let newest = self.servers.keyring().newest(&claim.name);
        if newest.is_some_and(|newest| newest.sequence > record.sequence) {
            return Err(Rejection::new(
                CloseCode::RecordOutdated,
                "a newer record of that server is known",
            ));
        }
        self.servers.addresses().learn(&record);
        Ok(())
    }

    async fn heard_record(&self, peer: &ServerName, record: SignedRecord) -> Result<(), Rejection> {
        let verified = record
            .verify()
            .map_err(|error| Rejection::new(CloseCode::NotProven, error.to_string()))?;
        if verified.name != peer {
            return Err(Rejection::new(
                CloseCode::NotProven,
                "the record is of another server",
            ));
        }
        self.keep(&verified, None).await?;
        self.servers.addresses().learn(&verified);
        Ok(())
    }

    async fn received(&self, peer: &ServerName) -> Result<Option<Received>, Failure> {
        let received = self.store.federation.received_of(peer).await.map_err(failure)?;
        Ok(received.and_then(|received| {
            Some(Received {
                log_id: received.log_id,
                cursor: Cursor::new(&received.cursor)?,
            })
        }))
    }

    async fn store(
        &self,
        peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> Result<(), Failure> {
        self.receiver
            .receive(peer, log_id, items, cursor)
            .await
            .map_err(failure)
    }

    async fn read_log(
        &self,
        peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<LogPage, Failure> {
        self.outgoing
            .page_for(peer, after, max_items, max_bytes)
            .await
            .map_err(failure)
    }

    async fn acknowledged(&self, peer: &ServerName, cursor: Cursor) -> Result<(), Failure> {
        self.outgoing.delivered(peer, &cursor).await.map_err(failure)
    }

    async fn extremities(&self, peer: &ServerName) -> Result<Vec<RoomExtremities>, Failure> {
        self.outgoing.extremities_for(peer).await.map_err(failure)
    }

    async fn heard_extremities(&self, peer: &ServerName, rooms: Vec<RoomExtremities>) {
        self.worker.compare_all(peer, rooms);
    }

    async fn answer(&self, peer: &ServerName, request: Request, parts: Parts) -> Result<Finished, Refused> {
        self.handlers.answer(peer, request, parts).await
    }

    fn heard_datagram(&self, peer: &ServerName, datagram: Datagram) {
        self.ephemeral.receive_datagram(peer, datagram);
    }

    fn connected(&self, peer: &ServerName, connected: bool) {
        self.ephemeral.connection_changed(peer, connected);
    }
}
