//! The assembly: the one place that builds the parts of a server and puts them together.

use std::sync::Arc;
use std::time::Duration;

use maru_protocol::cursor::LogId;

use crate::account_data::ClientData;
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::ephemeral::{Presence, PresenceLimits, Typing};
use crate::identity::Identity;
use crate::keys::Keys;
use crate::live::{Hub, Readers};
use crate::push::Push;
use crate::receipts::Receipts;
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
    /// What users' clients keep here for each other.
    pub account_data: ClientData,
    /// How far users have read.
    pub receipts: Receipts,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Who is present.
    pub presence: Arc<Presence>,
    /// Keys of end-to-end encryption.
    pub keys: Keys,
    /// Push rules.
    pub push: Arc<Push>,
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
            Arc::clone(&table),
            limits.message_characters,
        ));
        let account_data = ClientData::new(Arc::clone(&store), Arc::clone(&rooms));
        let receipts = Receipts::new(Arc::clone(&clock), Arc::clone(&store), Arc::clone(&rooms));
        let typing = Typing::start(Arc::clone(&hub));
        let offline_after = Duration::from_secs(config.presence.offline_after_seconds.into());
        let presence = Presence::start(
            Arc::clone(&clock),
            Arc::clone(&store),
            table,
            Arc::clone(&hub),
            PresenceLimits::offline_after(offline_after),
        );
        let keys = Keys::new(Arc::clone(&identity), Arc::clone(&store));
        let push = Arc::new(Push::new(Arc::clone(&store)));
        let sync = Sync::new(
            Arc::clone(&store),
            Arc::clone(&rooms),
            Arc::clone(&hub),
            Arc::clone(&clock),
            Arc::clone(&typing),
            Arc::clone(&presence),
        );
        Ok(Arc::new(Self {
            identity,
            clock,
            store,
            hub,
            accounts,
            rooms,
            account_data,
            receipts,
            typing,
            presence,
            keys,
            push,
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
