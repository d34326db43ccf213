//! Storage: the only place with SQL. One concrete [`Store`] over embedded SQLite or PostgreSQL.
//!
//! The store is a log and the tables that its records are applied to. Every write goes through the log's one writer,
//! which shares durable commits between everybody who waits; reads go through a pool of connections, and each object of
//! tables answers for its folder.
//!
//! | folder or file | what |
//! |---|---|
//! | `log/` | the log: positions, changes, the writer, group commit |
//! | `rooms/` | tables of rooms: events, timelines, states, memberships, receipts |
//! | `accounts/` | tables of accounts: users, devices, sessions, profiles, account data |
//! | `oauth/` | tables of OAuth 2.0: clients, what users have allowed them, who is signed in on pages |
//! | `encryption/` | tables of end-to-end encryption: keys, messages to devices |
//! | `federation/` | tables of federation: the inbox, what peers are to be sent, who peers are |
//! | `media/` | tables of media |
//! | `moderation/` | tables of moderation: what users have reported |
//! | `nodes/` | tables of the processes that share the database, and of what one of them does alone |
//! | `readers/` | tables of what follows the log by itself |
//! | `jobs/` | tables of durable jobs |
//! | `search/` | the index of full-text search |
//! | `appservices/` | what application services are sent |
//! | `engine/`, `engine.rs` | connections, statements and rows of both engines; migrations (`engine/schema.rs`) |
//! | `waiting_quota.rs` | how much may wait for a receiver, by sender |
//! | `backup.rs` | copies of the database |
//!
//! See `spec/architecture.md`.

pub mod accounts;
pub mod appservices;
pub mod backup;
pub mod encryption;
mod engine;
mod error;
pub mod federation;
pub mod jobs;
pub mod log;
pub mod media;
pub mod moderation;
pub mod nodes;
pub mod oauth;
pub mod readers;
pub mod rooms;
pub mod search;
pub mod waiting_quota;

use std::path::Path;
use std::sync::Arc;

use maru_protocol::cursor::LogId;

use accounts::AccountTables;
use appservices::AppserviceTables;
use encryption::EncryptionTables;
pub use engine::schema::VERSION as SCHEMA_VERSION;
pub use engine::writer_connection::Access;
use engine::{Address, Readers, query};
pub use error::StoreError;
use federation::FederationTables;
use jobs::JobTables;
pub use log::CommitLimits;
use log::Log;
use media::MediaTables;
use moderation::ModerationTables;
use nodes::NodeTables;
use oauth::OAuthTables;
use readers::ReaderTables;
use rooms::RoomTables;
use search::SearchTables;

/// How many connections read at once.
const READERS: u32 = 6;

/// Which database to open.
#[derive(Clone, Debug)]
pub enum Database {
    /// The embedded database in this file.
    Sqlite(std::path::PathBuf),
    /// A `postgres://` address.
    Postgres(String),
}

/// The database of this server: the log, and the tables that its records are applied to. Each may be handed out by itself.
#[derive(Debug)]
pub struct Store {
    /// The log: every write goes through it.
    pub log: Arc<Log>,
    /// Tables of rooms.
    pub rooms: Arc<RoomTables>,
    /// Tables of accounts.
    pub accounts: Arc<AccountTables>,
    /// Tables of OAuth 2.0.
    pub oauth: Arc<OAuthTables>,
    /// Tables of end-to-end encryption.
    pub encryption: Arc<EncryptionTables>,
    /// Tables of federation.
    pub federation: Arc<FederationTables>,
    /// Tables of media.
    pub media: Arc<MediaTables>,
    /// Tables of moderation.
    pub moderation: Arc<ModerationTables>,
    /// Tables of nodes.
    pub nodes: Arc<NodeTables>,
    /// Tables of readers of the log.
    pub readers: Arc<ReaderTables>,
    /// Tables of jobs.
    pub jobs: Arc<JobTables>,
    /// The index of full-text search.
    pub search: Arc<SearchTables>,
    /// What application services are sent.
    pub appservices: Arc<AppserviceTables>,
    pool: Readers,
}

impl Store {
    /// Opens the database, brings its schema up to date and starts the writer. `fresh_log_id` is used when the
    /// database is new; `readers` hears of every commit of this process, in order, before the writers' answers.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NodeInUse`], [`StoreError::Newer`], or what opening met.
    pub async fn open(
        database: &Database,
        access: Access,
        fresh_log_id: LogId,
        limits: CommitLimits,
        readers: Arc<dyn log::CommitReader>,
    ) -> Result<Arc<Self>, StoreError> {
        let address = match database {
            Database::Sqlite(path) => Address::sqlite(path),
            Database::Postgres(url) => Address::postgres(url)?,
        };
        let mut own = engine::writer_connection::OwnConnection::open(address.clone(), access).await?;
        let mut connection = own.take().ok_or(StoreError::Busy)?;
        let schema = engine::writer_connection::migrating(
            &mut connection,
            engine::schema::is_pending,
            engine::schema::migrate,
        );
        schema.await?;
        own.put(connection);
        let unlogged = log::unlogged::Unlogged::new(&address);
        let commit_reader = readers;
        let readers = address.readers(READERS);
        let journal = log::Journal::new(readers.clone());
        let log = Arc::new(Log::open(own, unlogged, fresh_log_id, limits, commit_reader, journal).await?);
        Ok(Arc::new(Self {
            rooms: Arc::new(RoomTables::new(readers.clone(), Arc::clone(&log))),
            accounts: Arc::new(AccountTables::new(readers.clone(), Arc::clone(&log))),
            oauth: Arc::new(OAuthTables::new(readers.clone(), Arc::clone(&log))),
            encryption: Arc::new(EncryptionTables::new(readers.clone(), Arc::clone(&log))),
            federation: Arc::new(FederationTables::new(readers.clone(), Arc::clone(&log))),
            media: Arc::new(MediaTables::new(readers.clone(), Arc::clone(&log))),
            moderation: Arc::new(ModerationTables::new(readers.clone(), Arc::clone(&log))),
            nodes: Arc::new(NodeTables::new(readers.clone(), Arc::clone(&log))),
            readers: Arc::new(ReaderTables::new(readers.clone(), Arc::clone(&log))),
            jobs: Arc::new(JobTables::new(readers.clone(), Arc::clone(&log))),
            search: Arc::new(SearchTables::new(readers.clone(), Arc::clone(&log))),
            appservices: Arc::new(AppserviceTables::new(readers.clone(), Arc::clone(&log))),
            log,
            pool: readers,
        }))
    }

    /// Opens an embedded database in a folder, for tests: same code, same engine.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_sqlite(
        folder: &Path,
        readers: Arc<dyn log::CommitReader>,
    ) -> Result<Arc<Self>, StoreError> {
        let database = Database::Sqlite(folder.join("maru.db"));
        let (access, limits) = (Access::Alone, CommitLimits::default());
        Self::open(&database, access, LogId([7; 16]), limits, readers).await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<(), StoreError> {
        query("SELECT one FROM log").all(&self.pool).await.map(drop)
    }

    /// Waits for everything queued to be stored, then closes. Later appends are refused.
    pub async fn close(&self) {
        self.log.close().await;
        self.pool.close().await;
    }
}
