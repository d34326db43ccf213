//! Rooms: their events, state and members, and who may see them.
//!
//! [`Rooms`] owns the parts; each has its own state and what it needs of the others, and no more:
//!
//! | question | part | file |
//! |---|---|---|
//! | a room, its state, an event by id | [`RoomRepository`] over the [`RoomCache`] | `repository/` |
//! | who may see an event? | [`Visibility`] for users, [`ServerVisibility`] for servers | `visibility.rs`, `server_visibility.rs` |
//! | messages, context, relations, threads | [`TimelineReader`] | `timeline/history.rs`, `timeline/relations.rs` |
//! | state and members as a user may read them | [`StateReader`] | `timeline/state.rs` |
//! | `unsigned` of an event, bundled aggregations | [`ClientEventFormat`], [`Aggregations`] | `timeline/client_event_format.rs`, `timeline/aggregations.rs` |
//! | messages of erased users | [`ErasedUsers`] | `timeline/erased.rs` |
//! | how does a local event enter a room? | [`Appender`] | `append.rs`, `append/` |
//! | transaction ids | [`Transactions`] | `append/transactions.rs` |
//! | whom does an event notify? | [`PushEvaluation`] (the rules are in `push`) | `append/push_evaluation.rs` |
//! | what state may a client set? | [`StateSender`] | `append/send_state.rs` |
//! | how does another server's event enter a room? | [`Ingest`] under an [`IngestLock`](ingest::IngestLock); [`Outliers`], [`JoinImporter`] | `ingest/` |
//! | what is missing in a timeline? | [`TimelineGaps`] | `ingest/gaps.rs` |
//! | join, leave, invite, kick, ban, knock | [`Memberships`] | `membership.rs` |
//! | who may join a restricted room? | [`JoinRules`] | `membership/join_rules.rs` |
//! | server ACLs | [`RoomRepository::admits`] | `membership/server_acl.rs` |
//! | invitations to rooms that are not here | [`RemoteMemberships`] | `membership/remote_invites.rs` |
//! | new rooms, upgrades | [`RoomCreation`], [`RoomUpgrade`] | `create.rs`, `upgrade.rs` |
//! | names that nobody has here yet | [`UnknownNames`] | `unknown_names.rs` |
//! | aliases, directory, summaries, spaces | [`Aliases`], [`Directory`], [`Summaries`], [`RoomPreviews`] | `discovery/` |
//!
//! Unread counts are made of what push rules say of an event (`append/push_evaluation.rs`) and are counted in the store
//! (`store/rooms/notifications.rs`); sync reads them in `sync/unread.rs`.

mod append;
mod assembly;
mod create;
mod discovery;
pub mod ingest;
mod membership;
mod repository;
pub mod room_locks;
pub mod server_visibility;
pub mod timeline;
mod unknown_names;
mod upgrade;
pub mod visibility;

use std::sync::Arc;

pub use append::push_evaluation::PushEvaluation;
pub use append::send::Sender;
pub use append::send_state::StateSender;
pub use append::transactions::{Transaction, Transactions};
pub use append::{Appender, Effects};
pub use create::{NewRoomRequest, Preset, RoomCreation, StateDraft};
pub use discovery::aliases::Aliases;
pub use discovery::directory::{Directory, DirectoryPage, DirectoryQuery, PageToken};
pub use discovery::hierarchy::{RoomPreviews, TreeChild, TreeRoom};
pub use discovery::summary::Summaries;
pub use ingest::facts::FactLoader;
pub use ingest::gaps::TimelineGaps;
pub use ingest::join_import::JoinImporter;
pub use ingest::live::Ingest;
pub use ingest::outliers::Outliers;
pub use ingest::room_lock::IngestLocks;
pub use membership::Memberships;
pub use membership::join_rules::JoinRules;
pub use membership::profile_propagation::ProfilePropagation;
pub use membership::remote_invites::RemoteMemberships;
pub use repository::room::Room;
pub use repository::room_cache::RoomCache;
pub use repository::room_numbers::RoomNumbers;
pub use repository::room_repository::RoomRepository;
pub use server_visibility::ServerVisibility;
pub use timeline::aggregations::Aggregations;
pub use timeline::client_event_format::ClientEventFormat;
pub use timeline::erased::ErasedUsers;
pub use timeline::history::TimelineReader;
pub use timeline::state::StateReader;
pub use unknown_names::{NameQueries, UnknownNames};
pub use upgrade::RoomUpgrade;
pub use upgrade::settings_carry_over::SettingsCarryOver;
pub use visibility::Visibility;

use crate::appservice_registrations::Registrations;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::push::Push;
use crate::store::Store;

/// The parts of rooms, each usable with what it names alone.
#[derive(Debug)]
pub struct Rooms {
    /// Rooms, their state and their events by id.
    pub repository: Arc<RoomRepository>,
    /// Users whose messages are erased.
    pub erased: Arc<ErasedUsers>,
    /// What users may see.
    pub visibility: Arc<Visibility>,
    /// What other servers may see.
    pub server_visibility: Arc<ServerVisibility>,
    /// What is missing in timelines.
    pub gaps: Arc<TimelineGaps>,
    /// State as users may read it.
    pub state_reader: Arc<StateReader>,
    /// Bundled aggregations.
    pub aggregations: Arc<Aggregations>,
    /// What is written around events for their readers.
    pub client_events: ClientEventFormat,
    /// Timelines as users may read them.
    pub timeline: TimelineReader,
    /// Transaction ids of clients.
    pub transactions: Arc<Transactions>,
    /// The way by which local events enter rooms.
    pub appender: Arc<Appender>,
    /// State events that clients set.
    pub state_sender: StateSender,
    /// Locks of rooms for storing received events.
    pub ingest_locks: IngestLocks,
    /// The way by which other servers' events enter timelines.
    pub ingest: Ingest,
    /// Auth chains and states that other servers send.
    pub outliers: Outliers,
    /// Local numbers of rooms that other servers name.
    pub numbers: Arc<RoomNumbers>,
    /// Rooms that come whole, by a join through another server.
    pub join_importer: JoinImporter,
    /// Who may ask for which membership.
    pub join_rules: Arc<JoinRules>,
    /// Memberships that local users change.
    pub memberships: Arc<Memberships>,
    /// Memberships of local users in rooms that are not here.
    pub remote_memberships: RemoteMemberships,
    /// Names and pictures in membership events.
    pub profile_propagation: ProfilePropagation,
    /// Settings that follow a user into a replacement room.
    pub settings_carry_over: Arc<SettingsCarryOver>,
    /// New rooms.
    pub creation: Arc<RoomCreation>,
    /// Rooms that replace others.
    pub upgrade: RoomUpgrade,
    /// Aliases.
    pub aliases: Aliases,
    /// Published rooms.
    pub directory: Arc<Directory>,
    /// What rooms show of themselves outside.
    pub summaries: Arc<Summaries>,
    /// What rooms and spaces show to whoever may join.
    pub previews: RoomPreviews,
}

/// What rooms are built on.
#[derive(Clone, Debug)]
pub struct Foundations {
    /// Who this server is.
    pub identity: Arc<Identity>,
    /// The time.
    pub clock: Arc<Clock>,
    /// The database.
    pub store: Arc<Store>,
    /// The cache that hears of the store's commits.
    pub cache: Arc<RoomCache>,
    /// Push rules.
    pub push: Arc<Push>,
    /// Application services, whose alone some names are.
    pub services: Arc<Registrations>,
    /// Who is asked for names that nobody has here.
    pub unknown_names: Arc<UnknownNames>,
}

/// Limits of rooms.
#[derive(Clone, Copy, Debug)]
pub struct RoomLimits {
    /// Longest `body` of a local message, in characters.
    pub message_characters: usize,
    /// Most events that the verdict on a received one may look at.
    pub verdict_events: usize,
}
