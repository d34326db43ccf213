//! Every bound of this crate: what a peer may make us hold, and how long anything may take.

use std::time::Duration;

/// A connection over which nothing came for this long is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often something is sent on a quiet connection, so that neither side nor a NAT forgets it.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Bytes in flight towards us on one stream.
pub const STREAM_WINDOW: u32 = 512 * 1024;

/// Bytes in flight on one connection, all streams together: more than all requests together can
/// hold, so that unread answers never stop the log.
pub const CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;

/// Bytes that we hold for a peer on one connection, all streams together, until it has acknowledged them.
pub const SEND_WINDOW: u32 = 8 * 1024 * 1024;

/// Bytes in flight towards us from a peer whose hello is not judged yet.
pub const STRANGER_WINDOW: u32 = 64 * 1024;

/// Datagrams that wait to be read or sent on one connection, in bytes.
pub const DATAGRAM_BUFFER: usize = 64 * 1024;

/// Requests of one peer that are answered at the same time; more wait at the peer.
pub const MAX_REQUESTS_IN: u32 = 24;

/// Requests to one peer at the same time; more wait with us.
pub const MAX_REQUESTS_OUT: usize = 16;

/// TLS handshakes at the same time with diallers that have not proven their address; others must do so first, by QUIC
/// Retry.
pub const MAX_UNPROVEN_HANDSHAKES: usize = 16;

/// Such handshakes of one IPv4 address or one IPv6 network of 64 bits.
pub const MAX_UNPROVEN_HANDSHAKES_OF_ONE_PLACE: usize = 8;

/// TLS handshakes at the same time with diallers that have proven their address; what comes beyond is turned away.
pub const MAX_HANDSHAKES: usize = 256;

/// Such handshakes of one place: who dials much keeps nobody else out, and nobody can do so in another's name.
pub const MAX_HANDSHAKES_OF_ONE_PLACE: usize = 64;

/// Peers whose hello is awaited or judged at the same time; what comes beyond is turned away.
pub const MAX_STRANGERS: usize = 512;

/// Such peers of one IPv4 address or one IPv6 network of 64 bits.
pub const MAX_STRANGERS_OF_ONE_PLACE: usize = 64;

/// Bytes held for one handshake that is not accepted yet.
pub const HANDSHAKE_BUFFER: u64 = 16 * 1024;

/// How long dialling one address may take, until the TLS handshake is done.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Wanted size of the UDP socket's buffers, in bytes, each way. The kernel may give less.
pub const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// How long a transport waits at its end until its closes are sent.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Peers that are kept track of.
pub const MAX_PEERS: usize = 10_000;

/// How long an address has for itself before the next one is dialled beside it.
pub const NEXT_TARGET_AFTER: Duration = Duration::from_millis(300);

/// Addresses that are dialled at the same time, for all peers together.
pub const MAX_DIALS: usize = 64;

/// Addresses of one peer that are tried in one round.
pub const MAX_TARGETS: usize = 8;

/// How long looking up a peer's addresses may take.
pub const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a caller waits for a peer to be connected.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that has been ready for this long was not dialled at the same time as one that comes now.
pub const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Largest request, in bytes: an event of the largest kind with the state that goes with an invitation.
pub const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// A request of more bytes counts as large.
pub const LARGE_REQUEST_BYTES: usize = 64 * 1024;

/// Large requests of one peer that are held at the same time; others wait before their bytes are read.
pub const MAX_LARGE_REQUESTS_IN: usize = 4;

/// How long each step of a request may take to arrive.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the next frame of an answer may take to be made.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a frame may wait to be taken by the other side.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Parts of an answer that are passed over in search of its end.
pub const MAX_PASSED_PARTS: usize = 1000;

/// Datagrams of one peer that are heard in a second.
pub const DATAGRAMS_PER_SECOND: f64 = 500.0;

/// Bytes of our log stream that wait to be written before we stop making more: a peer that does not read
/// holds up itself.
pub const MAX_LOG_WAITING: usize = 1024 * 1024;

/// Frames of a peer that the server is still to be told of before we stop reading more.
pub const MAX_HEARD_WAITING: usize = 4;

/// How long running requests get when the pool stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long connections get to end their stores when the pool stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes in flight towards us on one stream between nodes of one homeserver.
pub const NODE_STREAM_WINDOW: u32 = 128 * 1024;

/// Bytes in flight on one connection between nodes: more than all requests together can hold, so that answers that are not
/// read never stop others.
pub const NODE_CONNECTION_WINDOW: u32 = (MAX_NODE_REQUESTS + 8) * NODE_STREAM_WINDOW;

/// What one node asks of another at the same time; more waits with the asker.
pub const MAX_NODE_REQUESTS: u32 = 512;

/// A connection between nodes over which nothing came for this long is dead.
pub const NODE_IDLE_TIMEOUT: Duration = Duration::from_secs(6);

/// How often something is sent on a quiet connection between nodes.
pub const NODE_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Bytes of an answer that are on their way from a peer to another node, for each request.
pub const RELAY_BUFFER: usize = 64 * 1024;
