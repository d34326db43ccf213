//! Readers at work on real stores: everything once, whoever leads, over restarts and whatever they cannot deal with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use maru::clock::Clock;
use maru::nodes::Nodes;
use maru::readers::actions::Tuning;
use maru::readers::{Begins, LogSource, Reader, ReaderError, Readers};
use maru::store::accounts::account_data::AccountData;
use maru::store::encryption::to_device::ToDevice;
use maru::store::log::{Change, CommitReader, Committed, Record};
use maru::store::nodes::{NewNode, RunId};
use maru::store::readers::Effects;
use maru::store::{Access, CommitLimits, Store};
use maru_protocol::cursor::{LogId, Position};
use maru_tests::waiting::look_for;
use maru_tests::{Data, Engine, for_both_engines};
use ruma::{OwnedUserId, user_id};

for_both_engines!(
    everything_is_dealt_with_once_over_restarts,
    what_cannot_be_dealt_with_is_set_aside_and_read_again_when_asked,
    a_paused_reader_rests_until_it_is_resumed,
    a_reader_that_is_to_be_idle_leaves_the_machine_to_others,
    the_reader_of_a_dead_node_is_taken_over,
);

/// What the log was heard to say.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Committed>>);

impl CommitReader for Heard {
    fn committed(&self, batch: &[Committed], _: Position) {
        self.0.lock().unwrap().extend_from_slice(batch);
    }
}

/// Answers each message to a device with account data of the same number.
#[derive(Debug, Default)]
struct Counting {
    /// Fails at messages of this text.
    bad: Option<&'static str>,
    mended: AtomicBool,
    /// How long a part takes, and how many times as long the reader is idle then.
    takes: Duration,
    idle: u32,
}

fn alice() -> OwnedUserId {
    user_id!("@alice:x").to_owned()
}

impl Reader for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn begins(&self) -> Begins {
        Begins::AtStart
    }

    fn tuning(&self) -> Tuning {
        let moment = Duration::from_millis(1);
        Tuning {
            positions: 7,
            linger: moment,
            first_pause: moment,
            idle: self.idle,
            ..Tuning::default()
        }
    }

    fn handle<'r>(
        &'r self,
        _shard: u32,
        records: &'r [Committed],
    ) -> BoxFuture<'r, Result<Effects, ReaderError>> {
        let mut effects = Vec::new();
        for record in records {
            let Record::ToDevice(message) = &record.record else {
                continue;
            };
            let is_bad = self.bad.is_some_and(|bad| message.json.contains(bad));
            if is_bad && !self.mended.load(Ordering::Relaxed) {
                let failed = ReaderError::Failed("it is bad".to_owned());
                return std::future::ready(Err(failed)).boxed();
            }
            effects.push(Record::AccountData(AccountData {
                user_id: alice(),
                room: record.position.0,
                data_type: "m.counted".to_owned(),
                content: message.json.clone(),
            }));
        }
        let takes = self.takes;
        async move {
            tokio::time::sleep(takes).await;
            Ok(Effects::records(effects))
        }
        .boxed()
    }
}

/// A process: its store, its node and its readers.
struct Process {
    store: Arc<Store>,
    heard: Arc<Heard>,
    nodes: Arc<Nodes>,
    readers: Arc<Readers>,
}

impl Process {
    async fn start(data: &Data, name: &str, heard: Arc<Heard>, reader: Arc<Counting>) -> Self {
        let fresh = LogId(rand::random());
        let listener = Arc::clone(&heard) as Arc<dyn CommitReader>;
        let (access, limits) = (Access::Node(name.parse().unwrap()), CommitLimits::default());
        let store = Store::open(&data.database(), access, fresh, limits, listener)
            .await
            .unwrap();
        let node = NewNode {
            name: name.to_owned(),
            run: RunId(rand::random()),
            address: None,
            link: None,
            zone: None,
            version: String::new(),
        };
        let nodes = Nodes::start(Arc::clone(&store.nodes), node).await.unwrap();
        let source = Arc::clone(&store.log) as Arc<dyn LogSource>;
        let clock = Arc::new(Clock::System);
        let readers = Readers::start(&store.readers, source, &clock, &nodes, vec![reader]);
        Self {
            store,
            heard,
            nodes,
            readers,
        }
    }

    async fn stop(self) -> Arc<Heard> {
        self.readers.stop().await;
        self.nodes.stop().await;
        self.store.close().await;
        self.heard
    }

    async fn send(&self, texts: impl IntoIterator<Item = String>) {
        let pending: Vec<_> = texts
            .into_iter()
            .map(|text| {
                let message = Record::ToDevice(ToDevice {
                    user_id: alice(),
                    device_id: "D".to_owned(),
                    sender: alice(),
                    server: None,
                    json: format!("{{\"text\":\"{text}\"}}"),
                });
                self.store.log.enqueue(Change::from(message)).unwrap()
            })
            .collect();
        for pending in pending {
            pending.wait().await.unwrap();
        }
    }

    /// Waits until the reader has come to the end of the log, its own effects included. The texts that it answered, in
    /// order of position.
    async fn counted(&self) -> Vec<String> {
        look_for("a reader that has read everything", async || {
            let all = self.store.readers.all().await.unwrap();
            let has_read = all
                .first()
                .is_some_and(|stored| stored.position == self.store.log.position());
            has_read.then_some(()).ok_or(format!("{all:?}"))
        })
        .await;
        let data = self
            .store
            .accounts
            .account_data_after(&alice(), None)
            .await
            .unwrap();
        let text = |data: AccountData| {
            let value: serde_json::Value = serde_json::from_str(&data.content).unwrap();
            value["text"].as_str().unwrap().to_owned()
        };
        let mut data: Vec<_> = data.into_iter().collect();
        data.sort_by_key(|data| data.room);
        data.into_iter().map(text).collect()
    }

    /// Effects in the log: one that was stored twice would be there twice.
    fn effects(&self) -> usize {
        let committed = self.heard.0.lock().unwrap();
        let effects = committed
            .iter()
            .filter(|record| matches!(record.record, Record::AccountData(_)));
        effects.count()
    }
}

async fn process(data: &Data, reader: &Arc<Counting>) -> Process {
    Process::start(data, "one", Arc::default(), Arc::clone(reader)).await
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("text {n}")).collect()
}

async fn everything_is_dealt_with_once_over_restarts(engine: Engine) {
    let reader = Arc::new(Counting::default());
    let data = Data::new(engine);
    let mut process = process(&data, &reader).await;
    for round in 0..3 {
        process.send(texts(round * 50..round * 50 + 30)).await;
        if round == 1 {
            // Wherever it is just now.
            let heard = process.stop().await;
            process = Process::start(&data, "one", heard, Arc::clone(&reader)).await;
        }
        process.send(texts(round * 50 + 30..round * 50 + 50)).await;
    }
    assert_eq!(process.counted().await, texts(0..150));
    assert_eq!(process.effects(), 150);
    process.stop().await;
}

async fn what_cannot_be_dealt_with_is_set_aside_and_read_again_when_asked(engine: Engine) {
    let reader = Arc::new(Counting {
        bad: Some("text 20"),
        ..Counting::default()
    });
    let data = Data::new(engine);
    let process = process(&data, &reader).await;
    process.send(texts(0..40)).await;
    let mut expected = texts(0..40);
    let bad = expected.remove(20);
    assert_eq!(process.counted().await, expected);
    let aside = process.readers.set_aside("counting").await.unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(
        (&*aside[0].records, &*aside[0].why),
        ("message to a device", "it is bad")
    );
    let all = process.readers.all().await.unwrap();
    assert_eq!(
        (all[0].0.set_aside, all[0].1),
        (1, 0),
        "one set aside, nothing behind"
    );

    // It is mended, and reads again from there: what it did before is done once more, under the same number.
    reader.mended.store(true, Ordering::Relaxed);
    let before = Position(aside[0].position.0 - 1);
    assert_eq!(
        process.readers.rewind("counting", before, false).await.unwrap(),
        1
    );
    look_for("what is read again", async || {
        let counted = process.counted().await;
        counted.contains(&bad).then_some(()).ok_or(format!("{counted:?}"))
    })
    .await;
    assert_eq!(process.counted().await, texts(0..40));
    assert!(process.readers.set_aside("counting").await.unwrap().is_empty());
    process.stop().await;
}

async fn a_paused_reader_rests_until_it_is_resumed(engine: Engine) {
    let data = Data::new(engine);
    let process = process(&data, &Arc::default()).await;
    process.send(texts(0..10)).await;
    assert_eq!(process.counted().await.len(), 10);
    assert_eq!(process.readers.set_paused("counting", true).await.unwrap(), 1);
    assert_eq!(process.readers.set_paused("nobody", true).await.unwrap(), 0);
    process.send(texts(10..20)).await;
    let heard = process.stop().await;
    let process = Process::start(&data, "one", heard, Arc::default()).await;
    let all = process.readers.all().await.unwrap();
    assert!(all[0].0.paused && all[0].1 >= 10, "{all:?}");
    assert_eq!(process.effects(), 10, "it rests over a restart as well");
    process.readers.set_paused("counting", false).await.unwrap();
    assert_eq!(process.counted().await, texts(0..20));
    process.stop().await;
}

async fn a_reader_that_is_to_be_idle_leaves_the_machine_to_others(engine: Engine) {
    let takes = Duration::from_millis(10);
    let reader = Arc::new(Counting {
        takes,
        idle: 5,
        ..Counting::default()
    });
    let data = Data::new(engine);
    let process = process(&data, &reader).await;
    let began = Instant::now();
    process.send(texts(0..70)).await;
    assert_eq!(process.counted().await, texts(0..70));
    // Seven at a time, and there is no need to be idle after the last.
    let least = takes * 10 + takes * 5 * 9;
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    process.stop().await;
}

/// Nobody gives the lease back: on PostgreSQL its holder's beat has to stand still for three seconds, on SQLite whoever
/// held it is gone.
async fn the_reader_of_a_dead_node_is_taken_over(engine: Engine) {
    let data = Data::new(engine);
    let first = process(&data, &Arc::default()).await;
    first.send(texts(0..10)).await;
    assert_eq!(first.counted().await.len(), 10);
    let dead = first.nodes.run();
    let began = Instant::now();
    let second = match engine {
        Engine::Sqlite => {
            let Process {
                store,
                nodes,
                readers,
                ..
            } = first;
            drop((readers, nodes));
            store.close().await;
            Process::start(&data, "two", Arc::default(), Arc::default()).await
        }
        Engine::Postgres => {
            let second = Process::start(&data, "two", Arc::default(), Arc::default()).await;
            // It sees that the other one leads, and lives.
            look_for("both nodes", async || {
                let all = second.nodes.all();
                let living = all.iter().filter(|(_, is_dead)| !is_dead).count();
                (living == 2).then_some(()).ok_or(format!("{all:?}"))
            })
            .await;
            drop((first.readers, first.nodes));
            second
        }
    };
    second.send(texts(10..20)).await;
    assert_eq!(second.counted().await, texts(0..20));
    let took = began.elapsed();
    println!("taken over in {took:?}");
    let all = second.nodes.all();
    let gone: Vec<_> = all
        .iter()
        .filter(|(_, is_dead)| *is_dead)
        .map(|(node, _)| node.run)
        .collect();
    match engine {
        Engine::Sqlite => assert_eq!(gone, []),
        Engine::Postgres => {
            assert_eq!(gone, [dead]);
            assert!(took > Duration::from_secs(3), "not before it is dead: {took:?}");
        }
    }
    second.stop().await;
}
