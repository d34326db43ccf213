//! What the pool asks of the homeserver: the one door between this crate and rooms, users and storage.
//!
//! Everything that a peer says arrives here decoded and within the limits of `maru_protocol::wire`, from
//! a peer whose name is proven ([`Homeserver::judge`]); whether it is true and allowed is for the server
//! to say. Methods may be called at the same time for different peers. For one peer the pool calls
//! [`Homeserver::store`] and [`Homeserver::read_log`] one after the other, each in its own order.

use std::{future::Future, net::SocketAddr};

use maru_protocol::{
    LogId, PublicKey,
    record::SignedRecord,
    wire::{
        Answer, Call, CloseCode, Cursor, Datagram, LogItem, Part, Refused, Request,
        answer::RefusedCode,
        encode,
        message::{Received, RoomExtremities},
    },
};
use ruma::{OwnedServerName, ServerName};
use thiserror::Error;
use tokio::sync::mpsc;

/// What a connecting peer claims to be. Nothing of it is proven but the key of the connection.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The name it claims.
    pub name: OwnedServerName,
    /// Its server record, as it sent it.
    pub record: SignedRecord,
    /// The TLS key of the connection, which its holder has proven to hold.
    pub tls_key: PublicKey,
    /// Where it is, unless it is inside this process.
    pub address: Option<SocketAddr>,
    /// Whether we dialled it; then `name` is the one that we meant to reach.
    pub dialled: bool,
}

/// Why a peer is not let in, or not any longer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {reason}")]
pub struct Rejection {
    /// What the connection is closed with.
    pub code: CloseCode,
    /// Words for the admins of both sides. They travel to the peer: nothing secret.
    pub reason: String,
}

impl Rejection {
    /// A rejection.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

/// The server could not do what it should, for a reason that is not the peer's: storage failed, or it
/// shuts down. The connection is closed with [`CloseCode::Internal`] and dialled again later; nothing
/// is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// A piece of our log, for one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// What the peer is to hear, in log order. May be empty while the cursor moves.
    pub items: Vec<LogItem>,
    /// The place after the last item; it may be beyond it where nothing more is for this peer.
    pub cursor: Cursor,
    /// Whether reading on from the cursor may give more at once. Without it, the pool reads on when
    /// it is woken ([`crate::Pool::wake`]).
    pub more: bool,
}

/// The end of an answer, as bytes.
#[derive(Debug, Clone)]
pub struct Finished(Vec<u8>);

impl Finished {
    /// The `done` frame of the answer to a request `C`.
    ///
    /// # Errors
    /// A refusal as too large where it does not fit a frame.
    pub fn done<C: Call>(done: C::Done) -> Result<Self, Refused> {
        encode(&Answer::<C::Done>::Done(done))
            .map(Self)
            .map_err(|error| Refused::new(RefusedCode::TooLarge, &error.to_string()))
    }

    pub(crate) fn into_frame(self) -> Vec<u8> {
        self.0
    }
}

/// Where the parts of an answer go. They are sent while the answer is still being made; at most two wait,
/// so a peer that reads slowly slows its own answer down and nothing else.
#[derive(Debug)]
pub struct Parts(mpsc::Sender<Part>);

/// The peer does not read the answer any more: stop making it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer does not read the answer any more")]
pub struct NobodyReads;

impl From<NobodyReads> for Refused {
    fn from(reason: NobodyReads) -> Self {
        Self::new(RefusedCode::Unavailable, &reason.to_string())
    }
}

impl Parts {
    /// A way for parts, and its other end.
    pub fn channel() -> (Self, mpsc::Receiver<Part>) {
        let (sender, receiver) = mpsc::channel(2);
        (Self(sender), receiver)
    }

    /// Sends a part once there is room for it. A part must fit a frame.
    ///
    /// # Errors
    /// [`NobodyReads`].
    pub async fn send(&self, part: Part) -> Result<(), NobodyReads> {
        self.0.send(part).await.map_err(|_| NobodyReads)
    }
}

/// The homeserver behind a [`crate::Pool`].
pub trait Homeserver: Send + Sync + 'static {
    /// Our own name.
    fn name(&self) -> &ServerName;

    /// Our newest server record; its TLS key is the one that the transport proves.
    fn own_record(&self) -> SignedRecord;

    /// The id of our log, which changes on restore.
    fn log_id(&self) -> LogId;

    /// Whether to stay connected with a peer while there is nothing to say: true while it shares a room
    /// with us. Answered from memory.
    fn keeps_connected(&self, peer: &ServerName) -> bool;

    /// Judges what a connecting peer claims: that the record is valid, of that name, and names the TLS
    /// key of the connection; that the name is proven (a key name by the record alone, a domain by pin
    /// or by its web server); that it is allowed. Keeps the record if it is.
    ///
    /// Once this is `Ok`, `claim.name` is what all other methods are called with.
    ///
    /// # Errors
    /// Why the peer is not let in. Where the name could not be checked just now,
    /// [`CloseCode::Unavailable`].
    fn judge(&self, claim: Claim) -> impl Future<Output = Result<(), Rejection>> + Send;

    /// A connected peer has a newer record. Judged as [`Homeserver::judge`] does, except that it may name
    /// another TLS key, to be used from the next connection on.
    ///
    /// # Errors
    /// Why the peer is not let in any longer.
    fn heard_record(
        &self,
        peer: &ServerName,
        record: SignedRecord,
    ) -> impl Future<Output = Result<(), Rejection>> + Send;

    /// How far the peer's log is stored here; none at first.
    ///
    /// # Errors
    /// [`Failure`].
    fn received(&self, peer: &ServerName) -> impl Future<Output = Result<Option<Received>, Failure>> + Send;

    /// Stores items of the peer's log together with the place after them: all or nothing, durable on
    /// return. What cannot be taken in at once is kept as it came.
    ///
    /// An item may come again after a break and must then change nothing. A bad item is dropped and
    /// counted; it never holds up the others.
    ///
    /// # Errors
    /// [`Failure`].
    fn store(
        &self,
        peer: &ServerName,
        log_id: LogId,
        items: Vec<LogItem>,
        cursor: Cursor,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reads our log for a peer: what comes after a cursor that we made, at most `max_items` with at most
    /// `max_bytes` of [`LogItem::weight`] together (one item may be more if it stands alone).
    ///
    /// Without a cursor the peer has nothing of this log. A cursor comes from the peer: one that cannot
    /// be ours, or lies beyond the end, counts as none. What is too much to send is skipped per room.
    ///
    /// # Errors
    /// [`Failure`].
    fn read_log(
        &self,
        peer: &ServerName,
        after: Option<Cursor>,
        max_items: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<LogPage, Failure>> + Send;

    /// The peer has durably stored our log up to a cursor, or says so when it connects: what was kept
    /// for it before that may go. Called in order for one peer, and not for every frame.
    ///
    /// # Errors
    /// [`Failure`].
    fn acknowledged(
        &self,
        peer: &ServerName,
        cursor: Cursor,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Our forward extremities in the rooms that we share with the peer. Asked for after connecting, after
    /// each catch-up, and from time to time.
    ///
    /// # Errors
    /// [`Failure`].
    fn extremities(
        &self,
        peer: &ServerName,
    ) -> impl Future<Output = Result<Vec<RoomExtremities>, Failure>> + Send;

    /// The peer's forward extremities in some rooms: fetch what is missing here, from whoever has it.
    /// Returns soon; the fetching is the server's own business.
    fn heard_extremities(
        &self,
        peer: &ServerName,
        rooms: Vec<RoomExtremities>,
    ) -> impl Future<Output = ()> + Send;

    /// Answers a request of the peer: parts through `parts`, then the end. Dropped when the peer gives
    /// up or the time is over.
    ///
    /// # Errors
    /// Why it is refused.
    fn answer(
        &self,
        peer: &ServerName,
        request: Request,
        parts: Parts,
    ) -> impl Future<Output = Result<Finished, Refused>> + Send;

    /// A datagram of the peer. Returns at once.
    fn heard_datagram(&self, peer: &ServerName, datagram: Datagram);

    /// The connection with a peer is ready, or gone: what it said about presence holds no longer. One that
    /// has been replaced by another is not gone. Returns at once.
    fn connected(&self, peer: &ServerName, connected: bool) {
        let _ = (peer, connected);
    }
}
