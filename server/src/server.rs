//! The assembly: the one place that builds the parts of a server and puts them together.

use std::sync::Arc;

use maru_protocol::cursor::LogId;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::identity::Identity;
use crate::live::{Hub, Readers};
use crate::rooms::Rooms;
use crate::store::{CommitLimits, Database, Store, StoreError};
use crate::sync::Sync;

/// A running server's parts. Handlers name only those they use.
#[derive(Debug)]
pub struct Server {
    /// Who this server is.
    pub identity: Arc<Identity>,
    /// The time.
    pub clock: Arc<Clock>,
    /// The database.
    pub store: Arc<Store>,
    /// Who is listening.
    pub hub: Arc<Hub>,
    /// Accounts and sessions.
    pub accounts: Accounts,
    /// Rooms.
    pub rooms: Arc<Rooms>,
    /// What sync answers.
    pub sync: Sync,
    /// Sizes and counts that nobody may exceed.
    pub limits: Limits,
    /// The configuration it was started with.
    pub config: Config,
}

impl Server {
    /// Opens the database and builds everything on it. Nothing listens yet.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub async fn open(
        config: Config,
        database: Database,
        identity: Identity,
        clock: Clock,
    ) -> Result<Arc<Self>, StoreError> {
        let readers = Arc::new(Readers::default());
        let (table, hub) = (Arc::clone(&readers.table), Arc::clone(&readers.hub));
        let limits = config.limits.clone();
        let commit = CommitLimits {
            changes: limits.commit_changes,
            bytes: limits.commit_bytes,
        };
        let store = Store::open(&database, LogId(rand::random()), commit, readers).await?;
        hub.start_at(store.position());
        let (identity, clock) = (Arc::new(identity), Arc::new(clock));
        let accounts = Accounts::new(Arc::clone(&identity), Arc::clone(&clock), Arc::clone(&store));
        let rooms = Arc::new(Rooms::new(
            Arc::clone(&identity),
            Arc::clone(&clock),
            Arc::clone(&store),
            table,
            limits.message_characters,
        ));
        let sync = Sync::new(Arc::clone(&store), Arc::clone(&rooms), Arc::clone(&hub));
        Ok(Arc::new(Self {
            identity,
            clock,
            store,
            hub,
            accounts,
            rooms,
            sync,
            limits,
            config,
        }))
    }

    /// Stores what is queued and closes the database.
    pub async fn close(&self) {
        self.store.close().await;
    }
}
