//! The assembly: the one place that builds the parts of a server and puts them together. Over 500 lines: whoever adds a part
//! sees here what it needs and what comes before it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use maru_protocol::cursor::{EphemeralCounts, LogId};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use tokio::time::MissedTickBehavior;

use crate::account_data::{ClientData, Quota};
use crate::accounts::{AccountRules, Accounts};
use crate::appservice_registrations::{RegistrationError, Registrations};
use crate::appservices::{self, Appservices};
use crate::clock::Clock;
use crate::config::{self, Config, Limits, MediaStorage};
use crate::ephemeral::{EduSender, NodeListener, NodeSender, Outlet, Presence, PresenceLimits, Typing};
use crate::housekeeping;
use crate::identity::Identity;
use crate::jobs::{Runner, RunnerSettings};
use crate::keys::{KeyBackups, Keys};
use crate::limits::Budgets;
use crate::live::{CommitListeners, NodeFollower, Notifier};
use crate::media::{BucketSettings, Media, MediaLimits, Storage};
use crate::moderation::Moderation;
use crate::nodes::Nodes;
use crate::nodes::bus::{Bus, NatsError, NatsSettings};
use crate::oauth::OAuth;
use crate::peers::{self, PeerSettings, Peers};
use crate::push::Push;
use crate::readers::{LogSource, Reader, Readers};
use crate::receipts::Receipts;
use crate::refusal::Refusal;
use crate::rooms::{self, NameQueries, Rooms};
use crate::search::{self, Search, SearchReader};
use crate::store::log::{CommitReader, Mirror};
use crate::store::nodes::{NewNode, RunId};
use crate::store::{Access, CommitLimits, Database, Store, StoreError};
use crate::sync::{Sources, Sync};
use crate::tasks::Tasks;

/// How often what has gathered in memory is stored or dropped.
const MEMORY_EVERY: Duration = Duration::from_secs(30);

/// How often the others are told how much this node has to do.
const LOAD_EVERY: Duration = Duration::from_secs(1);

/// The time over which waiting clients are sent to other nodes when this one stops, at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How long it may take to tell the other nodes that this one stops.
const NOTICE: Duration = Duration::from_secs(1);

/// How long jobs that run may go on when the server stops.
const JOBS_GRACE: Duration = Duration::from_secs(5);

/// How long everything beside requests may take to end, jobs included.
const TASKS_GRACE: Duration = Duration::from_secs(15);

/// Why a server cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] StoreError),
    /// The storage of media cannot be used.
    #[error("{0} (`media.storage`)")]
    MediaStorage(String),
    /// NATS cannot be used as it is configured.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The registration of an application service cannot be used.
    #[error("{0} (`application_services`)")]
    ApplicationService(#[from] RegistrationError),
}

/// A running server's parts. Handlers name only those they use.
#[derive(Debug)]
pub struct Server {
    /// Who this server is.
    pub identity: Arc<Identity>,
    /// The time.
    pub clock: Arc<Clock>,
    /// The database.
    pub store: Arc<Store>,
    /// The processes that serve the same database.
    pub nodes: Arc<Nodes>,
    /// What follows the log by itself.
    pub readers: Arc<Readers>,
    /// Who is listening.
    pub notifier: Arc<Notifier>,
    /// Accounts and sessions.
    pub accounts: Arc<Accounts>,
    /// The authorization server of OAuth 2.0; none where it is turned off.
    pub oauth: Option<Arc<OAuth>>,
    /// Rooms.
    pub rooms: Arc<Rooms>,
    /// What users' clients keep here for each other.
    pub account_data: ClientData,
    /// How far users have read.
    pub receipts: Arc<Receipts>,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Who is present.
    pub presence: Arc<Presence>,
    /// Keys of end-to-end encryption.
    pub keys: Arc<Keys>,
    /// Backups of room keys.
    pub key_backups: KeyBackups,
    /// What users upload and download.
    pub media: Arc<Media>,
    /// Push rules.
    pub push: Arc<Push>,
    /// What runs beside requests.
    pub tasks: Arc<Tasks>,
    /// Other homeservers.
    pub peers: Arc<Peers>,
    /// What sync answers.
    pub sync: Arc<Sync>,
    /// Full-text search; none where it is turned off.
    pub search: Option<Search>,
    /// What users report.
    pub moderation: Moderation,
    /// Bridges and bots.
    pub appservices: Arc<Appservices>,
    /// How often things may be done.
    pub budgets: Budgets,
    /// Sizes and counts that nobody may exceed.
    pub limits: Limits,
    /// The configuration it was started with.
    pub config: Config,
}

impl Server {
    /// Opens the database and builds everything on it. Nothing listens yet.
    ///
    /// # Errors
    /// When the database or the storage of media cannot be opened.
    pub async fn open(
        config: Config,
        database: Database,
        identity: Identity,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenError> {
        let registrations = Registrations::load(&config.application_services, &identity.server_name)?;
        let registrations = Arc::new(registrations);
        let storage = media_storage(&config).await.map_err(OpenError::MediaStorage)?;
        let cleared = storage.clear_spool().await;
        cleared.map_err(|refusal| OpenError::MediaStorage(refusal.in_full()))?;
        let listeners = Arc::new(CommitListeners::default());
        let (table, notifier) = (Arc::clone(&listeners.room_cache), Arc::clone(&listeners.notifier));
        let own_rules = Arc::clone(&listeners.custom_rules);
        let destinations = Arc::clone(&listeners.peer_wakeups);
        let tail = Arc::clone(&listeners.recent_events);
        let awaited = Arc::clone(&listeners.event_waiters);
        let access = Access::Node(config.node_name.clone());
        let limits = config.limits.clone();
        let commit = CommitLimits {
            changes: limits.commit_changes,
            bytes: limits.commit_bytes,
        };
        let reader = Arc::clone(&listeners) as Arc<dyn CommitReader>;
        let store = Store::open(&database, access, LogId(rand::random()), commit, reader).await?;
        let first_count = EphemeralCounts::first(store.log.start_number(), clock.now_ms());
        notifier.start_at(store.log.position(), first_count);
        let (identity, clock) = (Arc::new(identity), Arc::new(clock));
        let tasks = Tasks::new();
        let push = Push::open(Arc::clone(&store), own_rules).await?;
        let push = Arc::new(push);
        let foundations = rooms::Foundations {
            identity: Arc::clone(&identity),
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&table),
            push: Arc::clone(&push),
            services: Arc::clone(&registrations),
            unknown_names: Arc::default(),
        };
        let room_limits = rooms::RoomLimits {
            message_characters: limits.message_characters,
            verdict_events: config.federation.verdict_events,
        };
        let rooms = Arc::new(Rooms::new(&foundations, room_limits));
        rooms.erased.load().await.map_err(unopened)?;
        let account_data_quota = Quota {
            items: limits.account_data_items.into(),
            bytes: limits.account_data_bytes.try_into().unwrap_or(i64::MAX),
        };
        let account_data = ClientData::new(
            Arc::clone(&store),
            Arc::clone(&rooms.repository),
            Arc::clone(&push),
            account_data_quota,
        );
        let receipts = Receipts::new(
            Arc::clone(&clock),
            Arc::clone(&store),
            Arc::clone(&rooms.repository),
            awaited,
            Arc::clone(&tasks),
        );
        let receipts = Arc::new(receipts);
        let (bus, bus_end) = Bus::new(Arc::clone(&listeners.commit_signal));
        let outlet = Outlet {
            edus: EduSender::new(Arc::clone(&identity)),
            nodes: NodeSender::new(bus),
        };
        let typing = Typing::start(Arc::clone(&notifier), outlet.clone(), &tasks);
        let offline_after = Duration::from_secs(config.presence.offline_after_seconds.into());
        let presence = Presence::start(
            Arc::clone(&clock),
            Arc::clone(&store),
            table,
            Arc::clone(&notifier),
            outlet.clone(),
            PresenceLimits::offline_after(offline_after),
            &tasks,
        );
        let keys = Arc::new(Keys::new(
            Arc::clone(&identity),
            Arc::clone(&clock),
            Arc::clone(&store),
        ));
        let key_backups = KeyBackups::new(
            Arc::clone(&store),
            limits.key_backup_keys,
            limits.key_backup_bytes,
        );
        let issuer = config.public_base_url.as_ref().filter(|_| config.oauth);
        let accounts = Accounts::new(
            Arc::clone(&identity),
            Arc::clone(&clock),
            Arc::clone(&store),
            Arc::clone(&rooms),
            Arc::clone(&notifier),
            Arc::clone(&tasks),
            AccountRules {
                registration: config.registration,
                devices_per_user: limits.devices_per_user,
                password_characters: limits.password_characters,
                reserved_names: config.reserved_names.clone(),
                account_page: issuer.map(|issuer| format!("{}/account", issuer.as_str())),
            },
            Arc::clone(&registrations),
        );
        let accounts = Arc::new(accounts);
        let oauth = issuer.map(|issuer| {
            let secret = identity.signing_key.secret.to_seed();
            let (accounts, tables) = (Arc::clone(&accounts), Arc::clone(&store.oauth));
            Arc::new(OAuth::new(
                accounts,
                tables,
                Arc::clone(&clock),
                issuer.as_str(),
                &secret,
            ))
        });
        let media = Arc::new(Media::new(
            Arc::clone(&identity),
            Arc::clone(&clock),
            Arc::clone(&store.media),
            storage,
            MediaLimits {
                largest: limits.upload_bytes,
                of_user: limits.uploads_per_user_bytes,
                cached: config.federation.media_cache_bytes,
            },
        ));
        let parts = peers::Parts {
            rooms: Arc::clone(&rooms),
            keys: Arc::clone(&keys),
            receipts: Arc::clone(&receipts),
            accounts: Arc::clone(&accounts),
            typing: Arc::clone(&typing),
            presence: Arc::clone(&presence),
            outlet: outlet.clone(),
            media: Arc::clone(&media),
            destinations,
            tail,
            tasks: Arc::clone(&tasks),
        };
        let settings = PeerSettings::configured(&config.federation);
        let peers = Peers::open(Arc::clone(&identity), Arc::clone(&clock), parts, settings)
            .await
            .map_err(unopened)?;
        let sync = Arc::new(Sync::new(Sources {
            store: Arc::clone(&store),
            rooms: Arc::clone(&rooms),
            notifier: Arc::clone(&notifier),
            clock: Arc::clone(&clock),
            typing: Arc::clone(&typing),
            presence: Arc::clone(&presence),
            keys: Arc::clone(&keys),
            push: Arc::clone(&push),
        }));
        let mirrors: Vec<Weak<dyn Mirror>> = vec![
            Arc::downgrade(&push) as Weak<dyn Mirror>,
            Arc::downgrade(&rooms.erased) as Weak<dyn Mirror>,
            Arc::downgrade(&rooms.transactions) as Weak<dyn Mirror>,
            Arc::downgrade(&keys) as Weak<dyn Mirror>,
            accounts.sessions_mirror(),
            peers.servers_mirror(),
            Arc::downgrade(&sync) as Weak<dyn Mirror>,
        ];
        let follower = NodeFollower::new(listeners, &rooms.repository, mirrors);
        store.log.follow(Arc::new(follower)).await?;
        let budgets = Budgets::new(config.rate_limits, &config.rates, Arc::clone(&clock));
        let nodes = Nodes::start(Arc::clone(&store.nodes), node(&config)).await?;
        let heard = bus_end
            .start(&nodes, &store, NatsSettings::configured(&config), &tasks)
            .await?;
        let node_listener = NodeListener {
            rooms: Arc::clone(&rooms.repository),
            typing: Arc::clone(&typing),
            presence: Arc::clone(&presence),
            outlet,
        };
        node_listener.start(heard, &tasks);
        accounts.make_service_senders().await.map_err(unopened)?;
        let sources = appservices::Sources {
            identity: Arc::clone(&identity),
            store: Arc::clone(&store),
            rooms: Arc::clone(&rooms),
            notifier: Arc::clone(&notifier),
            typing: Arc::clone(&typing),
            presence: Arc::clone(&presence),
        };
        let appservices = Appservices::new(registrations, sources).map_err(unopened)?;
        let queries = Arc::downgrade(&appservices) as Weak<dyn NameQueries>;
        foundations.unknown_names.ask_by(queries);
        appservices.forget_others().await?;
        appservices
            .begin(i64::try_from(clock.now_ms()).unwrap_or(i64::MAX))
            .await?;
        appservices.tell_passing(&nodes, &tasks);
        let source = Arc::clone(&store.log) as Arc<dyn LogSource>;
        let search = match config.search {
            true => Some(Search::new(Arc::clone(&store), Arc::clone(&rooms))),
            false => None,
        };
        let mut all_readers: Vec<Arc<dyn Reader>> = match config.search {
            true => vec![Arc::new(SearchReader::new(Arc::clone(&store)))],
            false => Vec::new(),
        };
        all_readers.extend(appservices.readers());
        if !config.search {
            // Nobody would take out of it what is redacted; and a cursor that stands still would hold the journal.
            store.readers.forget(search::NAME).await?;
            store.search.clear().await?;
        }
        let readers = Readers::start(&store.readers, source, &clock, &nodes, all_readers);
        let moderation = Moderation::new(
            Arc::clone(&store),
            Arc::clone(&rooms),
            Arc::clone(&peers.history),
            Arc::clone(&clock),
        );
        let server = Arc::new(Self {
            identity,
            clock,
            store,
            nodes,
            readers,
            notifier,
            accounts,
            oauth,
            rooms,
            account_data,
            receipts,
            typing,
            presence,
            keys,
            key_backups,
            media,
            push,
            tasks,
            peers,
            sync,
            search,
            moderation,
            appservices,
            budgets,
            limits,
            config,
        });
        Ok(server)
    }

    /// Begins what goes on beside requests, until the server is closed: durable jobs, and the care for what is in memory.
    /// Not for who opens a server to change something and leaves. `run` is who holds its jobs to others.
    pub fn begin_work(self: &Arc<Self>, run: RunId) {
        let kinds = housekeeping::kinds(&self.store, &self.clock, &self.rooms, &self.media);
        let settings = RunnerSettings {
            run,
            grace: JOBS_GRACE,
        };
        let (tables, clock) = (Arc::clone(&self.store.jobs), Arc::clone(&self.clock));
        let runner = Runner::new(kinds, tables, clock, settings);
        // It ends by itself, in order.
        drop(self.tasks.finish("jobs", runner.run(self.tasks.stopping())));
        let server = Arc::downgrade(self);
        self.tasks
            .keep("memory", move || look_after_memory(Weak::clone(&server)));
        let server = Arc::downgrade(self);
        self.tasks.keep("load", move || tell_load(Weak::clone(&server)));
    }

    /// Has the jobs of nodes that have died done by others.
    async fn free_jobs_of_the_dead(&self) -> Result<(), StoreError> {
        let nodes = self.nodes.all().into_iter();
        let dead = nodes.filter(|(_, is_dead)| *is_dead).map(|(node, _)| node.run);
        let dead: Vec<RunId> = dead.collect();
        if !dead.is_empty() {
            self.store.jobs.release(dead, self.now()).await?;
        }
        Ok(())
    }

    /// Milliseconds since 1970, as the database holds them.
    #[must_use]
    pub fn now(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// Tells other nodes that this one stops, gives them what it alone does, and where there are any has its waiting
    /// clients leave, spread over a window; until that is over. Requests are served meanwhile.
    pub async fn drain(&self) {
        match tokio::time::timeout(NOTICE, self.nodes.drain()).await {
            Ok(Ok(())) => {}
            // They notice by the beat.
            Ok(Err(error)) => tracing::warn!(%error, "other nodes are not told that this one stops"),
            Err(_) => tracing::warn!("other nodes are not told that this one stops"),
        }
        if self.nodes.others_serve() {
            let most = Duration::from_secs(self.limits.drain_seconds.into());
            let window = LEAVE_WITHIN.min(most);
            self.notifier.leave_within(window);
            tokio::time::sleep(window).await;
        }
    }

    /// Ends what waits, so that connections can be drained.
    pub fn stop(&self) {
        self.typing.end_all();
        self.notifier.stop();
    }

    /// Ends connections with peers and what runs beside requests, stores what is queued and closes the database. Takes
    /// seconds at most.
    pub async fn close(&self) {
        // What may still have something to store would wait for peers.
        self.peers.stop().await;
        self.tasks.close(TASKS_GRACE).await;
        self.accounts.flush_last_seen().await;
        self.readers.stop().await;
        self.nodes.stop().await;
        self.store.close().await;
    }
}

/// The configured storage of media, which was tried where it is a bucket.
///
/// # Errors
/// What does not work, as a sentence for the admin.
pub async fn media_storage(config: &Config) -> Result<Storage, String> {
    match config.media.storage {
        MediaStorage::Disk => Ok(Storage::on_disk(&config.data)),
        MediaStorage::S3 => Storage::in_bucket(&config.data, bucket_settings(&config.media)?).await,
    }
}

fn bucket_settings(media: &config::Media) -> Result<BucketSettings, String> {
    let secret_key = match (&media.secret_key, &media.secret_key_file) {
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| {
                format!(
                    "cannot read {} (`media.secret_key_file`): {error}",
                    file.display()
                )
            })?
            .trim()
            .to_owned(),
        (key, _) => key
            .as_ref()
            .map(|key| key.expose().to_owned())
            .unwrap_or_default(),
    };
    let authorities = media.authorities.as_deref().map_or(Ok(Vec::new()), |file| {
        let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
        certificates.map_err(|error| format!("cannot read {} (`media.authorities`): {error}", file.display()))
    })?;
    Ok(BucketSettings {
        endpoint: media.endpoint.as_ref().map(|url| url.as_str().to_owned()),
        bucket: media.bucket.clone().unwrap_or_default(),
        region: media.region.clone(),
        prefix: media.prefix.clone().unwrap_or_default(),
        path_style: media.path_style,
        access_key: media.access_key.clone().unwrap_or_default(),
        secret_key,
        authorities,
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        // What goes on holds parts of it.
        self.tasks.stop();
    }
}

/// What this process says of itself to others on the same database.
fn node(config: &Config) -> NewNode {
    let address = config.node_address.as_ref();
    let address = address.or(config.public_base_url.as_ref());
    NewNode {
        name: config.node_name.to_string(),
        run: RunId(rand::random()),
        address: address.map(|address| address.as_str().to_owned()),
        link: config.node_link_address.as_ref().map(ToString::to_string),
        zone: config.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn unopened(refusal: Refusal) -> StoreError {
    StoreError::Unavailable(refusal.in_full())
}

/// Tells the others how much this node has to do.
async fn tell_load(server: Weak<Server>) {
    let mut due = tokio::time::interval(LOAD_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let Some(server) = server.upgrade() else {
            return;
        };
        server.nodes.set_load(server.notifier.sessions());
    }
}

/// Stores or drops what has gathered in memory, from time to time.
async fn look_after_memory(server: Weak<Server>) {
    let mut due = tokio::time::interval(MEMORY_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let Some(server) = server.upgrade() else {
            return;
        };
        server.notifier.sweep(server.clock.now_ms());
        server.accounts.flush_last_seen().await;
        if let Err(error) = server.free_jobs_of_the_dead().await {
            tracing::warn!(%error, "the jobs of nodes that have died are not freed");
        }
        if let Err(error) = server.peers.refresh().await {
            tracing::warn!(%error, "what is known of peers is not refreshed");
        }
    }
}
