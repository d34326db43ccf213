//! What other nodes of this homeserver ask of this one while it leads. They hold the same keys and are believed; what they ask
//! is bounded all the same, so that a node that has much to ask holds up nobody else.

use std::sync::Arc;
use std::time::Duration;

use maru_federation::Pool;
use maru_federation::limits::{LARGE_REQUEST_BYTES, MAX_REQUEST_BYTES, REQUEST_TIMEOUT, WRITE_TIMEOUT};
use maru_federation::link::frames::{FrameReader, ReadError};
use maru_federation::link::{Handshake, IncomingStream, Link, OutgoingStream, Transport};
use maru_federation::pool::{RelayError, RequestError};
use maru_federation::quic::Quic;
use maru_protocol::cursor::Position;
use maru_protocol::wire::nodes::{FromLeader, Join, MAX_NODE_FRAME_BYTES, Note, ToLeader};
use maru_protocol::wire::request::Nothing;
use maru_protocol::wire::{Answer, Named, Refused, RefusedCode, encode};
use ruma::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::peers::backfill::scheduler::BackfillQueue;
use crate::peers::dependencies::Dependencies;
use crate::peers::identity::known_servers::KnownServers;
use crate::peers::inbound::inbox_worker::InboxWorker;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::request_handlers::refused;
use crate::peers::rpc_client::RpcClient;
use crate::store::Store;
use crate::tasks::Tasks;

/// Large requests of all nodes that are held at the same time; others wait before their bytes are read.
const MOST_LARGE: usize = 16;

/// How long to wait until this node knows as much of the log as the one that asks.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// The side of the node that leads: what other nodes ask is done here.
#[derive(Debug)]
pub(in crate::peers) struct NodeRequests {
    store: Arc<Store>,
    servers: Arc<KnownServers>,
    rpc: Arc<RpcClient>,
    local: Arc<LocalRooms>,
    worker: Arc<InboxWorker>,
    queue: Arc<BackfillQueue>,
    tasks: Arc<Tasks>,
    large: Semaphore,
}

/// Why something was not done: what is wrong is the asker's to notice, by a stream that is cut short.
type Ended = Result<(), String>;

impl NodeRequests {
    pub(in crate::peers) fn new(
        dependencies: &Dependencies,
        worker: Arc<InboxWorker>,
        queue: Arc<BackfillQueue>,
    ) -> Self {
        Self {
            store: Arc::clone(&dependencies.store),
            servers: Arc::clone(&dependencies.servers),
            rpc: Arc::clone(&dependencies.rpc),
            local: Arc::clone(&dependencies.local),
            worker,
            queue,
            tasks: Arc::clone(&dependencies.tasks),
            large: Semaphore::new(MOST_LARGE),
        }
    }

    /// Takes links of other nodes until the server stops.
    pub(in crate::peers) fn listen(self: &Arc<Self>, quic: Arc<Quic>) {
        let requests = Arc::clone(self);
        self.tasks.until_stop("node_links", async move {
            let mut links = JoinSet::new();
            while let Some(handshake) = quic.accept().await {
                while links.try_join_next().is_some() {}
                links.spawn(Arc::clone(&requests).serve(handshake));
            }
        });
    }

    /// Does what one node asks until its link is closed.
    async fn serve(self: Arc<Self>, handshake: Handshake) {
        let link = match handshake.await {
            Ok(link) => link,
            Err(error) => return tracing::info!(%error, "somebody is no node of this homeserver"),
        };
        tracing::debug!(path = %link.path(), "a node is linked");
        link.admit();
        let notes = Arc::clone(&self).heed_notes(Arc::clone(&link));
        let requests = async {
            let mut running = JoinSet::new();
            // As many at the same time as the link lets in.
            while let Ok((outgoing, incoming)) = link.accept_request().await {
                while running.try_join_next().is_some() {}
                running.spawn(Arc::clone(&self).answer(outgoing, incoming));
            }
        };
        tokio::join!(notes, requests);
    }

    async fn answer(self: Arc<Self>, outgoing: OutgoingStream, incoming: IncomingStream) {
        let mut reader = FrameReader::new(incoming);
        let ended = match first(&mut reader).await {
            Ok(ToLeader::Ask(ask)) => self.pass_on(&ask.peer, reader, outgoing).await,
            Ok(ToLeader::Join(join)) => self.hold(join, reader, outgoing).await,
            Ok(ToLeader::Joined(_)) => Err("the end of what has not begun".to_owned()),
            Err(why) => Err(why),
        };
        if let Err(why) = ended {
            tracing::debug!(why, "what a node asked was not done to its end");
        }
    }

    /// Sends a request to a peer, and passes its answer on.
    async fn pass_on(
        &self,
        peer: &ServerName,
        mut reader: FrameReader<IncomingStream>,
        mut outgoing: OutgoingStream,
    ) -> Ended {
        let length = in_time(reader.frame_length(MAX_REQUEST_BYTES)).await?;
        let is_large = length.is_some_and(|length| length > LARGE_REQUEST_BYTES);
        let _permit = match is_large {
            true => Some(self.large.acquire().await.map_err(text)?),
            false => None,
        };
        let request = in_time(reader.next_bytes(MAX_REQUEST_BYTES)).await?;
        let request = request.ok_or("no request")?;
        in_time(reader.expect_end()).await?;
        let Some(pool) = self.leading(&mut outgoing).await? else {
            return Ok(());
        };
        match self.relay(&pool, peer, &request, &mut outgoing).await {
            Ok(()) => {}
            Err(RelayError::NotAsked(error)) => {
                let refused = match error {
                    RequestError::Refused(refused) => refused,
                    error => Refused::new(RefusedCode::Unavailable, &error.to_string()),
                };
                say(&mut outgoing, &Answer::<Nothing>::Refused(refused)).await?;
                outgoing.shutdown().await.map_err(text)?;
            }
            Err(error) => return Err(error.to_string()),
        }
        // Until then it runs: a link closed now would take the end with it.
        let _ = timeout(WRITE_TIMEOUT, outgoing.delivered()).await;
        Ok(())
    }

    async fn relay(
        &self,
        pool: &Pool,
        peer: &ServerName,
        request: &[u8],
        outgoing: &mut OutgoingStream,
    ) -> Result<(), RelayError> {
        if let Err(refusal) = self.servers.check_allowed(peer) {
            return Err(RelayError::NotAsked(RequestError::Refused(refused(refusal))));
        }
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let frame = [&length.to_be_bytes(), request].concat();
        pool.relay(peer, &frame, outgoing).await
    }

    /// Keeps others out of the way into a room until the asker has been there.
    async fn hold(
        &self,
        join: Join,
        mut reader: FrameReader<IncomingStream>,
        mut outgoing: OutgoingStream,
    ) -> Ended {
        let _lock = tokio::select! {
            lock = self.local.lock_join(&join.room_id) => lock,
            () = outgoing.given_up() => return Ok(()),
        };
        if self.leading(&mut outgoing).await?.is_none() {
            return Ok(());
        }
        match reader.next(MAX_NODE_FRAME_BYTES).await.map_err(text)? {
            Some(ToLeader::Joined(joined)) => self.known_up_to(joined.at).await,
            _ => return Err("not the end of a join".to_owned()),
        }
        outgoing.shutdown().await.map_err(text)
    }

    /// The connections with peers, after the asker was told that there are any; none, which it is told too, where another node
    /// leads.
    async fn leading(&self, outgoing: &mut OutgoingStream) -> Result<Option<Pool>, String> {
        let pool = self.rpc.pool();
        let word = match &pool {
            Some(_) => FromLeader::Taken(Nothing {}),
            None => FromLeader::NotLeading(Nothing {}),
        };
        say(outgoing, &word).await?;
        if pool.is_none() {
            outgoing.shutdown().await.map_err(text)?;
            let _ = timeout(WRITE_TIMEOUT, outgoing.delivered()).await;
        }
        Ok(pool)
    }

    /// Heeds the notes of one node, in their order.
    async fn heed_notes(self: Arc<Self>, link: Arc<dyn Link>) {
        let Ok(stream) = link.accept_log().await else {
            return;
        };
        let mut reader = FrameReader::new(stream);
        loop {
            match reader.next::<Note>(MAX_NODE_FRAME_BYTES).await {
                Ok(Some(note)) => self.heed(note).await,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "a node sends no more notes"),
            }
        }
    }

    async fn heed(&self, note: Note) {
        self.known_up_to(note.at()).await;
        if self.rpc.pool().is_none() {
            return;
        }
        match note {
            Note::Announce(note) => self.rpc.announce_extremities(&note.peer),
            Note::Compare(note) => self.worker.compare_all(&note.peer, vec![note.room]),
            Note::Backfill(note) => self.queue.add(&note.room_id),
        }
    }

    /// Waits until this node has followed the log up to a position, or for so long.
    async fn known_up_to(&self, at: Position) {
        if !self.store.log.reach(at, KNOWN_WITHIN).await {
            tracing::debug!(%at, "this node is behind the one that asks");
        }
    }
}

async fn first(reader: &mut FrameReader<IncomingStream>) -> Result<ToLeader, String> {
    let first = in_time(reader.next::<ToLeader>(MAX_NODE_FRAME_BYTES)).await?;
    first.ok_or_else(|| "nothing is asked".to_owned())
}

async fn in_time<T>(reading: impl Future<Output = Result<T, ReadError>>) -> Result<T, String> {
    match timeout(REQUEST_TIMEOUT, reading).await {
        Ok(read) => read.map_err(text),
        Err(_) => Err("the request took too long to arrive".to_owned()),
    }
}

/// Writes one frame.
async fn say<T: Named>(outgoing: &mut OutgoingStream, frame: &T) -> Ended {
    let frame = encode(frame).map_err(text)?;
    let written = timeout(WRITE_TIMEOUT, outgoing.write_all(&frame)).await;
    written.map_err(text)?.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
