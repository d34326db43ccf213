//! Every configuration key: its name, type, default and meaning.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use super::section::section;
use maru_protocol::record::Address;
use ruma::OwnedServerName;

use super::{
    AddressRange, BaseUrl, ConfiguredPeers, Database, LogFormat, LogLevel, MediaStorage, NatsAddress,
    PeerAddress, Registration, Secret,
};
use crate::limits::{Budget, Rate, Rates};
use crate::node_name::NodeName;

/// User names by which somebody would be taken for the server, its admin, or a bridge to elsewhere.
const RESERVED_NAMES: [&str; 22] = [
    "abuse",
    "admin",
    "administrator",
    "anonymous",
    "everyone",
    "homeserver",
    "hostmaster",
    "maru",
    "matrix",
    "moderator",
    "noreply",
    "notices",
    "official",
    "postmaster",
    "root",
    "security",
    "server",
    "serveradmin",
    "support",
    "system",
    "webmaster",
    "_*",
];

section! {
    /// The whole configuration. `Config::default()` is what a start without file, variables and flags gets.
    pub struct Config {
        /// Folder of the keys, the embedded database, media and the admin socket; made if it is missing.
        data: PathBuf = "maru-data".into();
        /// Name of the homeserver, the part of user ids after the colon. Unset: the key name derived from the root key. Cannot change once there are users.
        server_name: Option<String> = None;
        /// Address of the client API. Port 0 takes a free port.
        listen: SocketAddr = loopback(8008);
        /// Address for other homeservers, UDP, for calls in both directions. Port 0 takes a free port. Unset: no federation.
        federation_listen: Option<SocketAddr> = None;
        /// Address of the Prometheus metrics. Unset: no metrics listener.
        metrics_listen: Option<SocketAddr> = None;
        /// `sqlite` for the embedded database in the data folder, or a `postgres://` URL.
        database: Database = Database::Sqlite;
        /// Name of this process among those that serve this homeserver on one PostgreSQL database.
        node_name: NodeName = NodeName::default();
        /// Where clients reach this very node, past any load balancer. Unset: `public_base_url`. Clients may keep it, so it must stay good, for this node or another.
        node_address: Option<BaseUrl> = None;
        /// Address for the other nodes of this homeserver, UDP: by it they have the node that speaks with other homeservers do what needs one. Only who holds this homeserver's keys is let in; no client and no other homeserver needs it. Port 0 takes a free port. Unset: no links between nodes.
        node_listen: Option<SocketAddr> = None;
        /// Where other nodes reach `node_listen`, as address or host name with port. Unset: `node_listen` itself.
        node_link_address: Option<PeerAddress> = None;
        /// Near what this node stands, as parts joined by `/`, the widest first, such as `asia/seoul/a`: clients are sent to the node whose zone has most first parts in common with theirs.
        zone: Option<String> = None;
        /// NATS servers by which the nodes of this homeserver tell each other what is new, as `nats://host:4222` or `tls://host:4222`, with `user:password@` before the host where they ask for it; several are of one cluster. The same for all nodes. None: PostgreSQL carries it.
        nats: Vec<NatsAddress> = Vec::new();
        /// File of credentials for NATS (a user's JWT and key).
        nats_credentials: Option<PathBuf> = None;
        /// Certificates in PEM of the authorities that the certificate of NATS may be of. Unset: those of the system.
        nats_authorities: Option<PathBuf> = None;
        /// Who may register: `open` (anybody), `token` (who has a registration token), `closed` (nobody but the one-time admin token of the first start).
        registration: Registration = Registration::Closed;
        /// User names that only admins may have, since others would take their owner for the server or its admin; `*` at the end stands for any rest, and punctuation does not count.
        reserved_names: Vec<String> = RESERVED_NAMES.map(str::to_owned).to_vec();
        /// Whether the rates below apply, and connections are counted by address. `off` is for load tests.
        rate_limits: bool = true;
        /// Where clients reach the server from outside, for `.well-known` and the printed address. Unset: there is no `.well-known/matrix/client`, and the bound address is printed.
        public_base_url: Option<BaseUrl> = None;
        /// Whether clients can sign in by OAuth 2.0, on this server's own pages under `public_base_url`, without which they cannot.
        oauth: bool = true;
        /// Proxies whose `X-Forwarded-For` is believed, as addresses or ranges.
        trusted_proxies: Vec<AddressRange> = Vec::new();
        /// Whether users can search messages: costs an index in the database. `off` empties it at the next start.
        search: bool = true;
        /// Registration files of application services (bridges and bots), in YAML or JSON, or folders that hold them. The same for all nodes; read at the start.
        application_services: Vec<PathBuf> = Vec::new();
        /// Certificates of the client API.
        tls: Tls = Tls::default();
        /// Where uploaded files lie.
        media: Media = Media::default();
        /// Sizes and counts.
        limits: Limits = Limits::default();
        /// Rates.
        rates: Rates = Rates::default();
        /// Other homeservers.
        federation: Federation = Federation::default();
        /// Presence.
        presence: Presence = Presence::default();
        /// Log lines.
        log: Log = Log::default();
    }
}

section! {
    /// TLS for the client API: both files, or neither and plain HTTP. Read again on SIGHUP.
    pub struct Tls {
        /// Certificate chain in PEM, the server's own first. Read again on SIGHUP.
        certificate: Option<PathBuf> = None;
        /// Private key of the certificate in PEM.
        private_key: Option<PathBuf> = None;
    }
}

section! {
    /// Where uploaded files, their thumbnails and copies of other homeservers' files lie.
    pub struct Media {
        /// `disk` for the data folder, or `s3` for a bucket of storage that speaks the S3 protocol, which several nodes share.
        storage: MediaStorage = MediaStorage::Disk;
        /// Address of the storage, such as `https://s3.example.org`. Unset: Amazon's, by the region.
        endpoint: Option<BaseUrl> = None;
        /// Name of the bucket, which must be there.
        bucket: Option<String> = None;
        /// Region of the bucket.
        region: String = "us-east-1".to_owned();
        /// What all names in the bucket begin with, so that it can hold other things too.
        prefix: Option<String> = None;
        /// Whether the bucket is named in the path of an address, as storages of one's own have it, and not in the host's name.
        path_style: bool = true;
        /// Access key of the storage.
        access_key: Option<String> = None;
        /// Secret key of the storage. Never shown; better kept in a variable or a file than here.
        secret_key: Option<Secret> = None;
        /// File that holds the secret key, instead of `secret_key`.
        secret_key_file: Option<PathBuf> = None;
        /// Certificates in PEM of the authorities that the storage's certificate may be of. Unset: those of the web.
        authorities: Option<PathBuf> = None;
    }
}

section! {
    /// Sizes and counts that nobody may exceed.
    pub struct Limits {
        /// Longest `body` of a message sent by a user of this server, in characters.
        message_characters: usize = 100_000;
        /// Largest request body other than media, in bytes.
        request_body_bytes: usize = 2 * 1024 * 1024;
        /// Largest media upload, in bytes.
        upload_bytes: u64 = 100 * 1024 * 1024;
        /// All media uploads of one user together, in bytes; further ones are refused.
        uploads_per_user_bytes: u64 = 10 * 1024 * 1024 * 1024;
        /// Pieces of account data of one user, those of rooms included; further ones are refused.
        account_data_items: u32 = 20_000;
        /// All account data of one user together, in bytes: a first sync carries it all.
        account_data_bytes: u64 = 8 * 1024 * 1024;
        /// Room keys in the key backups of one user, those of all versions together; further ones are refused.
        key_backup_keys: u32 = 500_000;
        /// Those keys together, in bytes.
        key_backup_bytes: u64 = 512 * 1024 * 1024;
        /// Devices of one user; the login that would exceed it is refused.
        devices_per_user: u32 = 100;
        /// Fewest characters of a password that is set.
        password_characters: usize = 8;
        /// Most changes that share one commit.
        commit_changes: usize = 512;
        /// Most bytes that share one commit.
        commit_bytes: usize = 4 * 1024 * 1024;
        /// Open connections to the client API; further ones wait.
        connections: usize = 50_000;
        /// Open connections of one address (an IPv6 network of 64 bits counts as one) that is no trusted proxy, and never more than half of all; further ones are refused.
        connections_per_address: usize = 2_000;
        /// Time in which a client must have sent the whole head of a request, in seconds.
        request_head_seconds: u32 = 30;
        /// Time in which a client must have sent the whole body of a request other than media, in seconds.
        request_body_seconds: u32 = 120;
        /// The same for a request that nobody is logged in for, in seconds.
        stranger_body_seconds: u32 = 10;
        /// Time in which a client must take some of what is sent to it, or send more of the media that it uploads, in seconds; its connection is closed then.
        stalled_seconds: u32 = 30;
        /// Time that requests in progress get to finish when the server stops, in seconds. Where other nodes serve, waiting clients are sent away before that, over 2 seconds or this time if it is shorter.
        drain_seconds: u32 = 10;
    }
}

/// Not a [`section!`]: its keys are the rows of [`Budget`], how often each thing may be done.
impl super::section::Node for Rates {
    fn walk(&mut self, path: &str, _meaning: &str, each: &mut dyn FnMut(super::Key<'_>)) {
        for budget in Budget::ALL {
            let path = super::section::below(path, budget.key());
            self.of_mut(budget).walk(&path, budget.bounds(), each);
        }
    }
}

/// Not a [`section!`]: its meaning comes from the field that holds it.
impl super::section::Node for Rate {
    fn walk(&mut self, path: &str, meaning: &str, each: &mut dyn FnMut(super::Key<'_>)) {
        let meaning = meaning.trim();
        let a_second = format!("{meaning}: how many a second in the long run.");
        let at_once = format!("{meaning}: how many at once after a quiet time.");
        self.per_second
            .walk(&super::section::below(path, "per_second"), &a_second, each);
        self.burst
            .walk(&super::section::below(path, "burst"), &at_once, each);
    }
}

section! {
    /// Other homeservers: who they are, who is let in, and how much is kept for them.
    pub struct Federation {
        /// Homeservers that are known: tables with `name`, `addresses` (where to dial it: addresses or host names, with ports) and `key` (its root key, where the name is a domain). In a variable, the list as TOML.
        peers: ConfiguredPeers = ConfiguredPeers::default();
        /// Names of the homeservers that are let in. Empty: all.
        allow: Vec<OwnedServerName> = Vec::new();
        /// Names of homeservers that are never let in, whatever else is said of them.
        deny: Vec<OwnedServerName> = Vec::new();
        /// Where other homeservers reach this one, the best first; at most 8. They stand in its server record, which anybody may see.
        addresses: Vec<Address> = Vec::new();
        /// Events of one room that a returning homeserver is sent; beyond it is told that events were skipped, and fetches them when they are wanted.
        backlog_events: u32 = 2000;
        /// Received events of one homeserver that may wait to be taken into their rooms.
        inbox_events: u32 = 10_000;
        /// Bytes of received events of one homeserver that may wait to be taken into their rooms.
        inbox_bytes: u64 = 64 * 1024 * 1024;
        /// Events that are looked at for the verdict on one of another homeserver; one that needs more, such as one that joins long forks, is dropped.
        verdict_events: usize = 200_000;
        /// Most bytes of media of other homeservers that are kept; the longest unused go first. 0 keeps none.
        media_cache_bytes: u64 = 1024 * 1024 * 1024;
    }
}

section! {
    /// When users count as present.
    pub struct Presence {
        /// Without a heartbeat (a poll or a frame) for so many seconds a user is offline.
        offline_after_seconds: u32 = 30;
    }
}

section! {
    /// What is logged to standard error, and how.
    pub struct Log {
        /// `text` or `json`.
        format: LogFormat = LogFormat::Text;
        /// Least important level that is logged: `error`, `warn`, `info`, `debug` (every request) or `trace`.
        level: LogLevel = LogLevel::Info;
    }
}

/// An address that only this machine can reach.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}
