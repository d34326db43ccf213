//! Housekeeping: what is dropped when its time has come, by jobs that come again and again, each in small steps.
//!
//! A node that does one of them does it for all. What a process keeps in memory is looked after by a task of its own
//! (`server/src/server.rs`).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::jobs::{Done, JobError, JobKind, Kinds, Rules};
use crate::media::Media;
use crate::observe::metrics;
use crate::peers::MESSAGES_KEPT_MS;
use crate::receipts::WAIT_MS;
use crate::rooms::Rooms;
use crate::store::accounts::gone_devices;
use crate::store::jobs::HeldJob;
use crate::store::{Store, StoreError};

/// Rows that are dropped in one transaction.
const STEP: usize = 500;

/// Transactions of one attempt; what is left is due at once.
const STEPS: usize = 20;

/// How long commits stay in the journal for nodes that are away, in milliseconds: seven days.
const COMMITS_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How long connections of sliding sync stay on which no room is sent, in milliseconds: thirty days. Their clients begin
/// anew after that.
const SYNC_CONNECTIONS_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Connections that are dropped in one transaction, each with all its rooms.
const SYNC_CONNECTIONS: usize = 20;

/// How long something may be under way to a device that was just removed.
const UNDER_WAY: Duration = Duration::from_secs(5 * 60);

/// The jobs of housekeeping.
pub fn kinds(store: &Arc<Store>, clock: &Arc<Clock>, rooms: &Arc<Rooms>, media: &Arc<Media>) -> Kinds {
    let rows = || Rows {
        store: Arc::clone(store),
        clock: Arc::clone(clock),
    };
    Kinds::default()
        .with(OldTransactions(Arc::clone(rooms)))
        .with(MediaSweep(Arc::clone(media)))
        .with(OldLoginTokens(rows()))
        .with(OldSyncConnections(rows()))
        .with(OldOAuth(rows()))
        .with(OldPeerMessages(rows()))
        .with(OldHeardMessages(rows()))
        .with(OldWaitingReceipts(rows()))
        .with(GoneDevices(rows()))
        .with(OldAttempts(rows()))
        .with(OldCommits(rows()))
}

/// Old rows of the database.
#[derive(Debug)]
struct Rows {
    store: Arc<Store>,
    clock: Arc<Clock>,
}

impl Rows {
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// The time so many milliseconds ago.
    fn ago(&self, milliseconds: u64) -> i64 {
        i64::try_from(self.clock.now_ms().saturating_sub(milliseconds)).unwrap_or(i64::MAX)
    }
}

/// Drops step by step until a step finds less than it may drop; not for ever.
async fn stepwise<F>(step: impl Fn() -> F) -> Result<Done, JobError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    for _ in 0..STEPS {
        let dropped = step().await?;
        if usize::try_from(dropped).unwrap_or(usize::MAX) < STEP {
            return Ok(Done::Finished);
        }
    }
    Ok(Done::Partly)
}

const fn minutes(count: u64) -> Rules {
    Rules::every(Duration::from_secs(count * 60))
}

/// Transaction ids that no client tries again.
#[derive(Debug)]
struct OldTransactions(Arc<Rooms>);

impl JobKind for OldTransactions {
    const NAME: &'static str = "old_transactions";
    const RULES: Rules = minutes(5);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        self.0.transactions.forget_old().await?;
        Ok(Done::Finished)
    }
}

/// What uploads and fetches have left behind.
#[derive(Debug)]
struct MediaSweep(Arc<Media>);

impl JobKind for MediaSweep {
    const NAME: &'static str = "media_sweep";
    const RULES: Rules = minutes(10);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        self.0.sweep().await?;
        Ok(Done::Finished)
    }
}

/// Login tokens that nobody has used in time.
#[derive(Debug)]
struct OldLoginTokens(Rows);

impl JobKind for OldLoginTokens {
    const NAME: &'static str = "old_login_tokens";
    const RULES: Rules = minutes(10);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (accounts, now) = (&self.0.store.accounts, self.0.now());
        stepwise(|| accounts.expire_login_tokens(now, STEP)).await
    }
}

/// Connections of sliding sync on which no room has been sent for a long time.
#[derive(Debug)]
struct OldSyncConnections(Rows);

impl JobKind for OldSyncConnections {
    const NAME: &'static str = "old_sync_connections";
    const RULES: Rules = minutes(60);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (accounts, before) = (&self.0.store.accounts, self.0.ago(SYNC_CONNECTIONS_KEPT_MS));
        for _ in 0..STEPS {
            if accounts.drop_sync_connections(before, SYNC_CONNECTIONS).await? < SYNC_CONNECTIONS {
                return Ok(Done::Finished);
            }
        }
        Ok(Done::Partly)
    }
}

/// What OAuth 2.0 leaves behind: codes and grants that have ended, people who were signed in on pages, applications that
/// nobody uses.
#[derive(Debug)]
struct OldOAuth(Rows);

impl JobKind for OldOAuth {
    const NAME: &'static str = "old_oauth";
    const RULES: Rules = minutes(10);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (oauth, now) = (&self.0.store.oauth, self.0.now());
        let all = [
            stepwise(|| oauth.expire_codes(now, STEP)).await?,
            stepwise(|| oauth.expire_device_grants(now, STEP)).await?,
            stepwise(|| oauth.expire_browser_sessions(now, STEP)).await?,
            stepwise(|| oauth.expire_resets(now, STEP)).await?,
            stepwise(|| oauth.expire_clients(now, STEP)).await?,
        ];
        let is_left = all.iter().any(|done| matches!(done, Done::Partly));
        Ok(if is_left { Done::Partly } else { Done::Finished })
    }
}

/// Messages to devices of servers that have been away for too long.
#[derive(Debug)]
struct OldPeerMessages(Rows);

impl JobKind for OldPeerMessages {
    const NAME: &'static str = "old_peer_messages";
    const RULES: Rules = minutes(30);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (federation, before) = (&self.0.store.federation, self.0.ago(MESSAGES_KEPT_MS));
        let step = || async move {
            let dropped = federation.expire_peer_messages(before, STEP).await;
            dropped.inspect(|count| metrics::PEER_MESSAGES_DROPPED.add(*count))
        };
        stepwise(step).await
    }
}

/// Ids of messages that peers will not send again.
#[derive(Debug)]
struct OldHeardMessages(Rows);

impl JobKind for OldHeardMessages {
    const NAME: &'static str = "old_heard_messages";
    const RULES: Rules = minutes(30);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (federation, before) = (&self.0.store.federation, self.0.ago(MESSAGES_KEPT_MS));
        stepwise(|| federation.forget_heard_messages(before, STEP)).await
    }
}

/// Receipts of peers for events that have not come.
#[derive(Debug)]
struct OldWaitingReceipts(Rows);

impl JobKind for OldWaitingReceipts {
    const NAME: &'static str = "old_waiting_receipts";
    const RULES: Rules = minutes(30);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (rooms, before) = (&self.0.store.rooms, self.0.ago(WAIT_MS));
        stepwise(|| rooms.expire_waiting_receipts(before, STEP)).await
    }
}

/// Messages and keys of devices that are gone: what was stored for them in the moment they went.
#[derive(Debug)]
struct GoneDevices(Rows);

impl JobKind for GoneDevices {
    const NAME: &'static str = gone_devices::KIND;
    const RULES: Rules = Rules::USUAL;
    type Payload = gone_devices::GoneDevices;

    async fn perform(&self, job: &HeldJob, gone: Self::Payload) -> Result<Done, JobError> {
        if job.attempt == 1 {
            return Err(JobError::Later(UNDER_WAY));
        }
        self.0.store.accounts.drop_of_gone_devices(gone).await?;
        Ok(Done::Finished)
    }
}

/// Attempts of jobs of the day before yesterday.
#[derive(Debug)]
struct OldAttempts(Rows);

impl JobKind for OldAttempts {
    const NAME: &'static str = "old_attempts";
    const RULES: Rules = minutes(2 * 60);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        self.0.store.jobs.drop_old_attempts(self.0.now()).await?;
        Ok(Done::Finished)
    }
}

/// Commits in the journal that everybody has read who follows the log. A node that comes back after longer starts anew.
#[derive(Debug)]
struct OldCommits(Rows);

impl JobKind for OldCommits {
    const NAME: &'static str = "old_commits";
    const RULES: Rules = minutes(30);
    type Payload = ();

    async fn perform(&self, _: &HeldJob, (): ()) -> Result<Done, JobError> {
        let (store, before) = (&self.0.store, self.0.ago(COMMITS_KEPT_MS));
        let read = store.readers.furthest_behind().await?;
        let read = read.unwrap_or(store.log.position());
        stepwise(|| store.log.drop_journal(before, read, STEP)).await
    }
}
