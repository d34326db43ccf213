//! What peers are sent from memory is what the log has for them.

use std::collections::HashSet;
use std::sync::Arc;

use maru::live::CommitListeners;
use maru::store::federation::destination_intervals::Interest;
use maru::store::log::{Change, CommitReader, Record};
use maru::store::rooms::events::{Redaction, StoredEvent};
use maru::store::{Access, CommitLimits, Store};
use maru_protocol::cursor::LogId;
use maru_protocol::destinations::Interested;
use maru_tests::chance::Chance;
use maru_tests::{Data, Engine};
use ruma::{EventId, OwnedServerName};

use super::story::{Room, Told};

/// Batches of one run.
const BATCHES: usize = 150;

/// A change of one event that may open, end or touch the interest of a peer, or take an event's content away.
fn told(
    room: &mut Room,
    peers: &[OwnedServerName],
    open: &mut HashSet<(i64, OwnedServerName)>,
    last: &mut Option<Told>,
    chance: &mut Chance,
) -> Change {
    let told = room.message("안녕");
    let mut records = told.change.records.clone();
    let change = match chance.below(16) {
        0..3 => Some(Interested::From),
        3 => Some(Interested::Until),
        4 => Some(Interested::Once),
        5 => {
            let target = last.as_ref().filter(|last| last.stored.room == room.nid);
            records.extend(target.map(|last| {
                Record::Redaction(Redaction {
                    target: last.stored.nid,
                    room: room.nid,
                    event: Arc::clone(&last.stored.event),
                    by: told.id().clone(),
                })
            }));
            None
        }
        _ => None,
    };
    let peer = &peers[chance.below(peers.len())];
    let key = (room.nid, peer.clone());
    // An interval is opened once and ended once.
    let fits = |change: &Interested| match change {
        Interested::From => open.insert(key.clone()),
        Interested::Until => open.remove(&key),
        Interested::Once => true,
    };
    records.extend(change.filter(fits).map(|change| {
        Record::Interest(Interest {
            room: room.nid,
            server_name: peer.clone(),
            change,
        })
    }));
    *last = Some(told);
    Change::new(records)
}

fn ids(events: &[Arc<StoredEvent>]) -> Vec<&EventId> {
    events.iter().map(|stored| &*stored.event.id).collect()
}

async fn memory_says_what_the_log_says(engine: Engine, seed: u64) {
    let (data, readers) = (Data::new(engine), Arc::new(CommitListeners::default()));
    let reader = Arc::clone(&readers) as Arc<dyn CommitReader>;
    let store = Store::open(
        &data.database(),
        Access::Alone,
        LogId([1; 16]),
        CommitLimits::default(),
        reader,
    )
    .await;
    let (store, tail, mut chance) = (store.unwrap(), &readers.recent_events, Chance(seed));
    let peers: Vec<OwnedServerName> = ["near.example", "far.example"]
        .map(|name| name.try_into().unwrap())
        .into();
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let (room, made) = Room::new();
        store.log.append(Change::new(made.records)).await.unwrap();
        rooms.push(room);
    }
    let mut open = HashSet::new();
    let (mut last, mut from_memory, mut sent) = (None, 0, 0);
    let mut positions = vec![store.log.position()];
    for _ in 0..BATCHES {
        let changes = (0..=chance.below(3)).map(|_| {
            let room = chance.below(rooms.len());
            told(&mut rooms[room], &peers, &mut open, &mut last, &mut chance)
        });
        let pending: Vec<_> = changes.map(|change| store.log.enqueue(change).unwrap()).collect();
        for pending in pending {
            positions.push(pending.wait().await.unwrap());
        }
        if chance.below(20) == 0 {
            let (peer, room) = (&peers[chance.below(2)], &rooms[chance.below(3)]);
            store
                .federation
                .skip_to(peer, room.nid, store.log.position())
                .await
                .unwrap();
            tail.forget(peer);
        }
        for peer in &peers {
            let after = positions[positions.len() - 1 - chance.below(positions.len().min(8))];
            let limit = [1, 2, 1_000][chance.below(3)];
            from_memory += usize::from(tail.after(peer, after, store.log.position()).is_some());
            let (read, _) = store.federation.events_for(peer, after, 1_000).await.unwrap();
            let mut remembered = Vec::new();
            let mut reached = after;
            while reached < store.log.position() {
                let (page, until) = tail.events_for(&store, peer, reached, limit).await.unwrap();
                assert!(
                    until > reached,
                    "seed {seed}: {peer} comes no further than {reached:?}"
                );
                remembered.extend(page);
                reached = until;
            }
            assert_eq!(
                ids(&remembered),
                ids(&read),
                "seed {seed}: {peer} after {after:?}, {limit} at most"
            );
            sent += read.len();
        }
    }
    assert!(
        from_memory > BATCHES / 2 && sent > BATCHES / 4,
        "{from_memory}, {sent}"
    );
}

#[tokio::test]
async fn sqlite() {
    for seed in 0..6 {
        Box::pin(memory_says_what_the_log_says(Engine::Sqlite, seed)).await;
    }
}

#[tokio::test]
async fn postgres() {
    Box::pin(memory_says_what_the_log_says(Engine::Postgres, 7)).await;
}
