//! What calls cost when more is stored: the same calls with little and with much of one thing, and the ratios.
//!
//! A ratio of 1 says that a call costs what it asks for, however much there is.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::idle_peers::Peer;
use crate::context::{Context, SETUP_CONCURRENCY};
use crate::error::LoadError;
use crate::matrix::{self, Room, Session, encode};
use crate::measure::{Latencies, millis};
use crate::report::Outcome;
use crate::scan::Field;
use crate::traffic;

/// How much little is, and how many times more much is.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Messages in a room
    #[arg(long, default_value_t = 1_000)]
    pub(crate) messages: usize,
    /// Answers in a thread
    #[arg(long, default_value_t = 100)]
    pub(crate) threads: usize,
    /// Members of a room
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
    /// Rooms of a user
    #[arg(long, default_value_t = 10)]
    pub(crate) rooms: usize,
    /// Devices of a user
    #[arg(long, default_value_t = 4)]
    pub(crate) devices: usize,
    /// Connected homeservers, where --federation is given
    #[arg(long, default_value_t = 5)]
    pub(crate) peers: usize,
    /// How many times as much there is the second time
    #[arg(long, default_value_t = 20)]
    pub(crate) times: usize,
    /// Calls of each kind
    #[arg(long, default_value_t = 200)]
    pub(crate) repeats: usize,
}

/// The largest ratio that a call may have: what is left is caches and the depth of trees.
const LARGEST_RATIO: f64 = 1.5;

/// Calls by name, and the median of each.
type Medians = Vec<(&'static str, Duration)>;

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let growth = Growth {
        context,
        repeats: size.repeats,
    };
    let times = size.times;
    let by_messages = [
        growth.messages(size.messages).await?,
        growth.messages(size.messages * times).await?,
    ];
    compare(outcome, "messages", by_messages);
    let by_threads = [
        growth.threads(size.threads).await?,
        growth.threads(size.threads * times).await?,
    ];
    compare(outcome, "threads", by_threads);
    let by_members = [
        growth.members(size.members).await?,
        growth.members(size.members * times).await?,
    ];
    compare(outcome, "members", by_members);
    let by_rooms = [
        growth.rooms(size.rooms).await?,
        growth.rooms(size.rooms * times).await?,
    ];
    compare(outcome, "rooms", by_rooms);
    let by_devices = [
        growth.devices(size.devices).await?,
        growth.devices(size.devices * times).await?,
    ];
    compare(outcome, "devices", by_devices);
    if context.federation.is_some() {
        let by_peers = [
            growth.peers(size.peers).await?,
            growth.peers(size.peers * times).await?,
        ];
        compare(outcome, "peers", by_peers);
    }
    if context.judge {
        let ratios = outcome
            .figures
            .iter()
            .filter(|(name, _)| name.ends_with("_ratio"));
        let largest = ratios.filter_map(|(_, ratio)| ratio.as_f64()).fold(0.0, f64::max);
        outcome.figure("largest_ratio", largest);
        outcome.at_most("largest_ratio", LARGEST_RATIO);
    }
    Ok(())
}

fn compare(outcome: &mut Outcome, what: &str, [few, many]: [Medians; 2]) {
    for ((call, few), (_, many)) in few.into_iter().zip(many) {
        let name = format!("{what}_{call}");
        outcome.figure(format!("{name}_ms_few"), millis(few));
        outcome.figure(format!("{name}_ms_many"), millis(many));
        let ratio = many.as_secs_f64() / few.as_secs_f64().max(1e-9);
        outcome.figure(format!("{name}_ratio"), ratio);
    }
}

struct Growth<'c> {
    context: &'c Context,
    repeats: usize,
}

impl Growth<'_> {
    /// The median of a call.
    async fn median(
        &self,
        mut call: impl AsyncFnMut(usize) -> Result<(), LoadError>,
    ) -> Result<Duration, LoadError> {
        let mut durations = Vec::with_capacity(self.repeats);
        for n in 0..self.repeats {
            let started = Instant::now();
            call(n).await?;
            durations.push(started.elapsed());
        }
        Ok(Latencies::new(durations).percentile(0.5))
    }

    async fn get(&self, session: &mut Session, path: &str) -> Result<Duration, LoadError> {
        self.median(async |_| session.fetch("GET", path, None).await.map(drop))
            .await
    }

    /// A message after the other, and syncs with nothing new.
    async fn send_and_sync(&self, session: &mut Session, room: &Room) -> Result<Medians, LoadError> {
        let next_batch = Field::new("\"next_batch\"");
        let send = self
            .median(async |n| session.send(room, &format!("more{n}"), "more").await.map(drop))
            .await?;
        let first = session.sync(None, Duration::ZERO, None).await?;
        let since = next_batch.of(&first)?.to_owned();
        let sync = self
            .median(async |_| {
                let answer = session.sync(Some(&since), Duration::ZERO, None);
                answer.await.map(drop)
            })
            .await?;
        Ok(vec![("send", send), ("sync_nothing_new", sync)])
    }

    /// A room of two, with so many messages in it.
    async fn messages(&self, count: usize) -> Result<Medians, LoadError> {
        let users = self.context.users(2).await?;
        let mut members = self.context.sessions_of(&users);
        let room = self
            .context
            .room(&mut members.iter_mut().collect::<Vec<_>>())
            .await?;
        let marker = self.context.marker();
        let (sent, _) = traffic::send_all(&mut members, &[vec![&room], vec![&room]], &marker, count).await?;
        let middle = sent.get(sent.len() / 4).map(|sent| sent.event_id.as_str());
        let middle = encode(middle.unwrap_or_default());
        let [reader, ..] = members.as_mut_slice() else {
            return Err(LoadError::Usage("growth needs members".into()));
        };
        let mut medians = Vec::new();
        for (name, rest) in [
            ("newest_page", "messages?dir=b&limit=20".to_owned()),
            ("oldest_page", "messages?dir=f&limit=20".to_owned()),
            ("page_of_100", "messages?dir=b&limit=100".to_owned()),
            ("context", format!("context/{middle}?limit=20")),
            ("event", format!("event/{middle}")),
        ] {
            medians.push((name, self.get(reader, &room.path(&rest)).await?));
        }
        let first = self
            .median(async |_| reader.sync(None, Duration::ZERO, None).await.map(drop))
            .await?;
        medians.push(("first_sync", first));
        medians.extend(self.send_and_sync(reader, &room).await?);
        Ok(medians)
    }

    /// A thread with so many answers.
    async fn threads(&self, count: usize) -> Result<Medians, LoadError> {
        let users = self.context.users(1).await?;
        let mut sessions: Vec<Session> = (0..SETUP_CONCURRENCY)
            .flat_map(|_| self.context.sessions_of(&users))
            .collect();
        let Some((first, others)) = sessions.split_first_mut() else {
            return Err(LoadError::Usage("growth needs a user".into()));
        };
        let room = first.create_room().await?;
        let root = first.send(&room, "root", "root").await?;
        let step = others.len().max(1);
        let answers = others.iter_mut().enumerate().map(async |(worker, session)| {
            for n in (worker..count).step_by(step) {
                let path = room.path(&format!("send/m.room.message/answer{n}"));
                let content = format!(
                    r#"{{"msgtype":"m.text","body":"answer","m.relates_to":{{"rel_type":"m.thread","event_id":"{root}"}}}}"#
                );
                session.fetch("PUT", &path, Some(content.as_bytes())).await?;
            }
            Ok::<_, LoadError>(())
        });
        futures_util::future::try_join_all(answers).await?;
        let root = encode(&root);
        let mut medians = Vec::new();
        for (name, path) in [
            ("root", room.path(&format!("event/{root}"))),
            ("list", room.path_of_version("v1", "threads")),
            (
                "relations",
                room.path_of_version("v1", &format!("relations/{root}?limit=20")),
            ),
            ("page_with_root", room.path("messages?dir=f&limit=20")),
        ] {
            medians.push((name, self.get(first, &path).await?));
        }
        Ok(medians)
    }

    /// A room with so many members.
    async fn members(&self, count: usize) -> Result<Medians, LoadError> {
        let mut members = self.context.sessions_of(&self.context.users(count).await?);
        let room = self
            .context
            .room(&mut members.iter_mut().collect::<Vec<_>>())
            .await?;
        let [reader, ..] = members.as_mut_slice() else {
            return Err(LoadError::Usage("growth needs members".into()));
        };
        let page = self.get(reader, &room.path("messages?dir=b&limit=20")).await?;
        let mut medians = vec![("newest_page", page)];
        medians.extend(self.send_and_sync(reader, &room).await?);
        Ok(medians)
    }

    /// A user with so many rooms.
    async fn rooms(&self, count: usize) -> Result<Medians, LoadError> {
        let mut user = self.user().await?;
        let room = user.create_room().await?;
        for _ in 1..count {
            user.create_room().await?;
        }
        self.send_and_sync(&mut user, &room).await
    }

    /// A user with so many devices.
    async fn devices(&self, count: usize) -> Result<Medians, LoadError> {
        let mut user = self.user().await?;
        let room = user.create_room().await?;
        let name = user.user.name.clone();
        let mut connection = crate::client::Connection::new(self.context.target.clone());
        for _ in 1..count {
            matrix::login(&mut connection, &name).await?;
        }
        self.send_and_sync(&mut user, &room).await
    }

    /// So many homeservers that are connected and say nothing.
    async fn peers(&self, count: usize) -> Result<Medians, LoadError> {
        let address = self.context.federation()?;
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(Peer::connect(address).await?);
        }
        let mut user = self.user().await?;
        let room = user.create_room().await?;
        let medians = self.send_and_sync(&mut user, &room).await;
        drop(peers);
        medians
    }

    async fn user(&self) -> Result<Session, LoadError> {
        let user = self.context.sessions(1).await?.pop();
        user.ok_or_else(|| LoadError::Usage("no account was made".into()))
    }
}
