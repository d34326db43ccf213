//! Links inside one process, for tests: no sockets, no keys to prove, the same behaviour.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use maru_protocol::{PublicKey, wire::CloseCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::{Mutex as AsyncMutex, mpsc, watch},
};

use super::{
    BoxFuture, CloseReason, Handshake, Incoming, IncomingStream, Link, LinkError, Outgoing, OutgoingStream,
    Path, Transport,
};
use crate::limits;

/// Bytes that fit into one stream before its writer waits.
const STREAM_BYTES: usize = 256 * 1024;

/// Datagrams that wait on one link.
const DATAGRAMS: usize = 256;

/// Addresses of one process, and who listens there. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    listeners: Arc<Mutex<HashMap<SocketAddr, Listener>>>,
}

#[derive(Clone)]
struct Listener {
    key: PublicKey,
    links: mpsc::Sender<Arc<MemoryLink>>,
}

impl MemoryNetwork {
    /// A transport that dials from anywhere and listens at `address`, in the place of whoever listened
    /// there before.
    pub fn transport(&self, address: SocketAddr, key: PublicKey) -> MemoryTransport {
        let (links, accepted) = mpsc::channel(limits::MAX_HANDSHAKES);
        self.listeners().insert(address, Listener { key, links });
        MemoryTransport {
            network: self.clone(),
            address,
            key,
            accepted: AsyncMutex::new(accepted),
            made: Mutex::default(),
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Transport`] of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    address: SocketAddr,
    key: PublicKey,
    accepted: AsyncMutex<mpsc::Receiver<Arc<MemoryLink>>>,
    made: Mutex<Vec<Arc<MemoryLink>>>,
}

impl MemoryTransport {
    fn keep(&self, link: Arc<MemoryLink>) -> Arc<dyn Link> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|link| !link.is_closed());
        made.push(link.clone());
        link
    }

    async fn connect(
        &self,
        address: SocketAddr,
        expected: Option<PublicKey>,
    ) -> Result<Arc<dyn Link>, LinkError> {
        let unreachable = || LinkError::Closed(CloseReason::TimedOut);
        let listener = self
            .network
            .listeners()
            .get(&address)
            .cloned()
            .ok_or_else(unreachable)?;
        if expected.is_some_and(|expected| expected != listener.key) {
            return Err(LinkError::Closed(CloseReason::Transport("another key".into())));
        }
        let (near, far) = MemoryLink::pair(self.key, listener.key);
        listener.links.send(far).await.map_err(|_| unreachable())?;
        Ok(self.keep(near))
    }
}

impl Transport for MemoryTransport {
    fn own_key(&self) -> PublicKey {
        self.key
    }

    fn dial(
        &self,
        address: SocketAddr,
        expected: Option<PublicKey>,
    ) -> BoxFuture<'_, Result<Arc<dyn Link>, LinkError>> {
        Box::pin(self.connect(address, expected))
    }

    fn accept(&self) -> BoxFuture<'_, Option<Handshake>> {
        Box::pin(async {
            let link = self.accepted.lock().await.recv().await?;
            let link = self.keep(link);
            Some(Box::pin(async { Ok(link) }) as Handshake)
        })
    }

    fn shut_down(&self, code: CloseCode, reason: &'static str) -> BoxFuture<'_, ()> {
        self.network.listeners().remove(&self.address);
        for link in self.made.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            link.close(code, reason);
        }
        Box::pin(async {})
    }
}

/// A closed link: who closed it, with what.
#[derive(Debug, Clone)]
struct Closed {
    by: PublicKey,
    code: CloseCode,
    reason: String,
}

type Pair = (OutgoingStream, IncomingStream);

/// One end of a link in memory.
pub struct MemoryLink {
    own_key: PublicKey,
    peer_key: PublicKey,
    admitted: watch::Sender<bool>,
    peer_admitted: watch::Receiver<bool>,
    closed: Arc<watch::Sender<Option<Closed>>>,
    log_opened: AtomicBool,
    logs_out: mpsc::Sender<IncomingStream>,
    logs_in: AsyncMutex<mpsc::Receiver<IncomingStream>>,
    requests_out: mpsc::Sender<Pair>,
    requests_in: AsyncMutex<mpsc::Receiver<Pair>>,
    datagrams_out: mpsc::Sender<Bytes>,
    datagrams_in: AsyncMutex<mpsc::Receiver<Bytes>>,
}

impl MemoryLink {
    /// Both ends of a link, between a dialler and an acceptor of these keys.
    pub fn pair(dialler: PublicKey, acceptor: PublicKey) -> (Arc<Self>, Arc<Self>) {
        let closed = Arc::new(watch::Sender::new(None));
        let (near_logs, far_logs_in) = mpsc::channel(1);
        let (far_logs, near_logs_in) = mpsc::channel(1);
        let (near_requests, far_requests_in) = mpsc::channel(1);
        let (far_requests, near_requests_in) = mpsc::channel(1);
        let (near_datagrams, far_datagrams_in) = mpsc::channel(DATAGRAMS);
        let (far_datagrams, near_datagrams_in) = mpsc::channel(DATAGRAMS);
        let (near_admitted, far_peer_admitted) = watch::channel(false);
        let (far_admitted, near_peer_admitted) = watch::channel(false);
        let near = Self {
            own_key: dialler,
            peer_key: acceptor,
            admitted: near_admitted,
            peer_admitted: near_peer_admitted,
            closed: closed.clone(),
            log_opened: AtomicBool::new(false),
            logs_out: near_logs,
            logs_in: AsyncMutex::new(near_logs_in),
            requests_out: near_requests,
            requests_in: AsyncMutex::new(near_requests_in),
            datagrams_out: near_datagrams,
            datagrams_in: AsyncMutex::new(near_datagrams_in),
        };
        let far = Self {
            own_key: acceptor,
            peer_key: dialler,
            admitted: far_admitted,
            peer_admitted: far_peer_admitted,
            closed,
            log_opened: AtomicBool::new(false),
            logs_out: far_logs,
            logs_in: AsyncMutex::new(far_logs_in),
            requests_out: far_requests,
            requests_in: AsyncMutex::new(far_requests_in),
            datagrams_out: far_datagrams,
            datagrams_in: AsyncMutex::new(far_datagrams_in),
        };
        (Arc::new(near), Arc::new(far))
    }

    fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    fn reason(&self, closed: &Option<Closed>) -> Option<CloseReason> {
        let closed = closed.as_ref()?;
        if closed.by == self.own_key {
            return Some(CloseReason::ByUs);
        }
        Some(CloseReason::ByPeer {
            code: closed.code.number().into(),
            reason: closed.reason.clone(),
        })
    }

    async fn until_closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        // The sender is ours, so this ends with a reason and in no other way.
        let closed = closed.wait_for(Option::is_some).await;
        closed
            .ok()
            .and_then(|closed| self.reason(&closed))
            .unwrap_or(CloseReason::ByUs)
    }

    /// Runs until it is done or the link is closed.
    async fn or_closed<T>(&self, run: impl Future<Output = Option<T>>) -> Result<T, LinkError> {
        tokio::select! {
            biased;
            reason = self.until_closed() => Err(LinkError::Closed(reason)),
            outcome = run => outcome.ok_or(LinkError::Closed(CloseReason::Reset)),
        }
    }

    fn stream(&self) -> (OutgoingStream, IncomingStream) {
        let (writer, reader) = duplex(STREAM_BYTES);
        let closed = self.closed.clone();
        (
            Box::new(MemoryStream::new(writer, closed.clone())),
            Box::new(MemoryStream::new(reader, closed)),
        )
    }
}

impl Link for MemoryLink {
    fn peer_key(&self) -> PublicKey {
        self.peer_key
    }

    fn path(&self) -> Path {
        Path::Memory
    }

    fn round_trip(&self) -> Option<Duration> {
        None
    }

    /// Both ends know at once when the link is closed.
    fn probe(&self) {}

    fn admit(&self) {
        self.admitted.send_replace(true);
    }

    fn open_log(&self) -> BoxFuture<'_, Result<OutgoingStream, LinkError>> {
        Box::pin(async {
            if self.log_opened.swap(true, Ordering::Relaxed) {
                return Err(LinkError::Setup("the log stream is open already".into()));
            }
            let (ours, theirs) = self.stream();
            self.or_closed(async { self.logs_out.send(theirs).await.ok() })
                .await?;
            Ok(ours)
        })
    }

    fn accept_log(&self) -> BoxFuture<'_, Result<IncomingStream, LinkError>> {
        Box::pin(self.or_closed(async { self.logs_in.lock().await.recv().await }))
    }

    fn open_request(&self) -> BoxFuture<'_, Result<(OutgoingStream, IncomingStream), LinkError>> {
        Box::pin(self.or_closed(async {
            let mut admitted = self.peer_admitted.clone();
            admitted.wait_for(|admitted| *admitted).await.ok()?;
            let (our_writer, their_reader) = self.stream();
            let (their_writer, our_reader) = self.stream();
            self.requests_out.send((their_writer, their_reader)).await.ok()?;
            Some((our_writer, our_reader))
        }))
    }

    fn accept_request(&self) -> BoxFuture<'_, Result<(OutgoingStream, IncomingStream), LinkError>> {
        Box::pin(self.or_closed(async { self.requests_in.lock().await.recv().await }))
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), LinkError> {
        if let Some(reason) = self.reason(&self.closed.borrow()) {
            return Err(LinkError::Closed(reason));
        }
        // A full queue loses it, as a network would.
        let _ = self.datagrams_out.try_send(datagram);
        Ok(())
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, LinkError>> {
        Box::pin(self.or_closed(async { self.datagrams_in.lock().await.recv().await }))
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| Closed {
                by: self.own_key,
                code,
                reason: reason.to_owned(),
            });
            first
        });
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        Box::pin(self.until_closed())
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.close(CloseCode::Done, "");
    }
}

/// A stream that breaks when its link is closed.
struct MemoryStream {
    stream: DuplexStream,
    closed: Arc<watch::Sender<Option<Closed>>>,
    ended: BoxFuture<'static, ()>,
}

impl MemoryStream {
    fn new(stream: DuplexStream, closed: Arc<watch::Sender<Option<Closed>>>) -> Self {
        let mut ended = closed.subscribe();
        Self {
            stream,
            closed,
            ended: Box::pin(async move {
                let _ = ended.wait_for(Option::is_some).await;
            }),
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        if self.closed.borrow().is_some() || self.ended.as_mut().poll(cx).is_ready() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Outgoing for MemoryStream {
    /// What is written is there already.
    fn delivered(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Of who reads no more is heard by writing.
    fn given_up(&mut self) -> BoxFuture<'_, ()> {
        let mut closed = self.closed.subscribe();
        Box::pin(async move {
            let _ = closed.wait_for(Option::is_some).await;
        })
    }
}

impl Incoming for MemoryStream {}

impl AsyncRead for MemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
