//! A node dies, and everybody who listened there goes on at the others, all at the same moment and from their cursors.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::idle;
use crate::context::Context;
use crate::error::LoadError;
use crate::exactly_once::Marker;
use crate::listen::{Listener, Transport};
use crate::machine::raise_open_files;
use crate::matrix::{Room, Session, User};
use crate::measure::{Latencies, millis};
use crate::report::Outcome;
use crate::target::Target;

/// How many listen, and how.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// How the devices listen
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    pub(crate) transport: Transport,
    /// Devices that listen at the node that dies
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Accounts that the devices are shared out to, all in one room
    #[arg(long, default_value_t = 105)]
    pub(crate) accounts: usize,
}

/// How long one long-poll lasts.
const POLL: Duration = Duration::from_secs(300);
/// Devices that connect at the same time before the node dies.
const OPENING: usize = 64;
/// How often it is looked whether all listen.
const LOOK: Duration = Duration::from_millis(50);
/// Pause before a device tries once more.
const PAUSE: Duration = Duration::from_millis(100);
/// How long everybody may take to be back and to have heard.
const PATIENCE: Duration = Duration::from_secs(120);

/// A device that was at the node: the times count from the death.
struct Back {
    connected: Duration,
    heard: Duration,
    tries: usize,
}

/// What all devices share.
struct Storm<'a> {
    transport: Transport,
    dying: &'a Arc<Target>,
    marker: Marker,
    opening: Semaphore,
    listening: Cell<usize>,
    death: watch::Receiver<Option<Instant>>,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let pid = context.watched.server.pids.first();
    let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
    let (Some(pid), Some(other)) = (pid, context.further_nodes.first()) else {
        let needs = "reconnect needs --node, and --pid of the first node, which it kills";
        return Err(LoadError::Usage(needs.into()));
    };
    if raise_open_files()? < (size.connections + 2 * OPENING) as u64 + 100 {
        return Err(LoadError::Usage(
            "the system does not allow as many open sockets".into(),
        ));
    }
    let users = idle::devices(context, size.accounts, size.connections).await?;
    let (room, speaker) = room_of_all(context, &users).await?;
    let mut speaker = Session::new(Arc::clone(other), speaker);
    let (dead, death) = watch::channel(None);
    let storm = Storm {
        transport: size.transport,
        dying: &context.target,
        marker: context.marker(),
        opening: Semaphore::new(OPENING),
        listening: Cell::new(0),
        death,
    };
    let nodes = context.further_nodes.iter().cycle();
    let following = try_join_all(
        users
            .iter()
            .zip(nodes)
            .map(|(user, node)| storm.follow(user, node)),
    );
    let killing = async {
        while storm.listening.get() < users.len() {
            tokio::time::sleep(LOOK).await;
        }
        let killed = kill_process(pid, Signal::KILL);
        killed.map_err(|error| LoadError::Io {
            what: "killing a node".into(),
            source: error.into(),
        })?;
        dead.send_replace(Some(Instant::now()));
        // Nobody can have heard it before.
        speaker.send(&room, "t0", &storm.marker.text(0)).await?;
        tokio::time::sleep(PATIENCE).await;
        Err::<(), _>(LoadError::Timeout("everybody being back".into()))
    };
    let back = tokio::select! {
        back = following => back?,
        ended = killing => return ended,
    };

    let connected = Latencies::new(back.iter().map(|back| back.connected).collect());
    let heard = Latencies::new(back.iter().map(|back| back.heard).collect());
    outcome.latencies("connected_again", &connected);
    outcome.figure("all_connected_again_ms", millis(connected.percentile(1.0)));
    outcome.figure("all_have_heard_ms", millis(heard.percentile(1.0)));
    let tries: usize = back.iter().map(|back| back.tries).sum();
    outcome.figure("tries_per_device", tries as f64 / back.len().max(1) as f64);
    Ok(())
}

/// A room of all accounts, and one of its members.
async fn room_of_all(context: &Context, users: &[User]) -> Result<(Room, User), LoadError> {
    let mut accounts = users.to_vec();
    accounts.sort_by(|one, other| one.name.cmp(&other.name));
    accounts.dedup_by(|one, other| one.name == other.name);
    let mut members = context.sessions_of(&accounts);
    let room = context.room(&mut members.iter_mut().collect::<Vec<_>>()).await?;
    let speaker = accounts.pop();
    let speaker = speaker.ok_or_else(|| LoadError::Usage("reconnect needs accounts".into()))?;
    Ok((room, speaker))
}

impl Storm<'_> {
    /// Listens at the node until that dies, then at another until the message has come that was sent meanwhile.
    async fn follow(&self, user: &User, node: &Arc<Target>) -> Result<Back, LoadError> {
        let opening = self.opening.acquire().await;
        let mut listener = Listener::start_at(self.transport, self.dying, user, POLL).await?;
        drop(opening);
        self.listening.set(self.listening.get() + 1);
        while listener.next().await.is_ok() {}
        let mut since = listener.since().to_owned();
        drop(listener);
        let mut death = self.death.clone();
        let died = death.wait_for(Option::is_some).await.ok().and_then(|died| *died);
        let died = died.ok_or_else(|| LoadError::Protocol("the node ended by itself".into()))?;
        let (mut tries, mut connected, mut heard) = (0, None, 0);
        loop {
            tries += 1;
            let session = Session::new(Arc::clone(node), user.clone());
            let resumed = Listener::resume(self.transport, session, node, since.clone(), POLL).await;
            if let Ok(mut listener) = resumed {
                connected.get_or_insert_with(|| died.elapsed());
                while let Ok(news) = listener.next().await {
                    heard += self.marker.find(&news).count();
                    if heard > 0 {
                        break;
                    }
                }
                listener.since().clone_into(&mut since);
            }
            match (connected, heard) {
                (_, 0) => tokio::time::sleep(PAUSE).await,
                (Some(connected), 1) => {
                    let heard = died.elapsed();
                    return Ok(Back {
                        connected,
                        heard,
                        tries,
                    });
                }
                _ => return Err(LoadError::Verification("a message came more than once".into())),
            }
        }
    }
}
