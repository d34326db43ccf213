//! What nodes and leases promise: one holder at a time, each with a higher number than the one before, and nothing stored by
//! whoever holds a lower one.

use std::sync::Arc;

use maru::store::StoreError;
use maru::store::nodes::{Claim, Lease, NewNode, NodeTables, RunId};
use maru::store::readers::{Advance, Effects, ReaderId, Track};
use maru_protocol::cursor::Position;
use maru_tests::{Engine, for_both_engines};

use super::logs::Real;

for_both_engines!(
    a_node_is_registered_under_its_name,
    a_beat_counts_on_while_the_run_is_registered,
    a_lease_is_taken_as_it_was_seen,
    of_many_who_want_a_lease_one_gets_it,
    what_is_given_back_is_free,
    who_has_lost_a_lease_stores_nothing,
);

const ONE: RunId = RunId(1);
const TWO: RunId = RunId(2);

fn node(name: &str, run: RunId) -> NewNode {
    NewNode {
        name: name.to_owned(),
        run,
        address: Some("http://127.0.0.1:8008".to_owned()),
        link: None,
        zone: None,
        version: "1".to_owned(),
    }
}

fn claims(of: &[(&str, i64)]) -> Vec<Claim> {
    let claim = |(name, seen): &(&str, i64)| Claim {
        name: (*name).into(),
        seen: *seen,
    };
    of.iter().map(claim).collect()
}

fn lease(name: &str, run: RunId, fencing: i64) -> Lease {
    Lease {
        name: name.into(),
        run,
        fencing,
    }
}

async fn runs(nodes: &NodeTables) -> Vec<(String, RunId)> {
    let all = nodes.all().await.unwrap();
    all.into_iter().map(|node| (node.name, node.run)).collect()
}

async fn a_node_is_registered_under_its_name(engine: Engine) {
    let log = Real::start(engine).await;
    let nodes = &log.store.nodes;
    nodes.register(node("a", ONE)).await.unwrap();
    nodes.set_draining("a", true).await.unwrap();
    let stored = nodes.all().await.unwrap().remove(0);
    assert_eq!(stored.address.as_deref(), Some("http://127.0.0.1:8008"));
    assert!(stored.draining && stored.run == ONE && stored.load == 0);
    // Started again: another run, which does not drain.
    nodes.register(node("a", TWO)).await.unwrap();
    let again = nodes.all().await.unwrap().remove(0);
    assert!(!again.draining && again.run == TWO && again.beat > stored.beat);
    assert!(!nodes.set_draining("nobody", true).await.unwrap());
    nodes.register(node("b", RunId(3))).await.unwrap();
    let expected = match engine {
        // Who has the database to itself knows of nobody else.
        Engine::Sqlite => vec![("b".to_owned(), RunId(3))],
        Engine::Postgres => vec![("a".to_owned(), TWO), ("b".to_owned(), RunId(3))],
    };
    assert_eq!(runs(nodes).await, expected);
    nodes.remove(RunId(3)).await.unwrap();
    nodes.remove(RunId(3)).await.unwrap();
    assert!(runs(nodes).await.iter().all(|(name, _)| name == "a"));
}

async fn a_beat_counts_on_while_the_run_is_registered(engine: Engine) {
    let log = Real::start(engine).await;
    let nodes = &log.store.nodes;
    nodes.register(node("a", ONE)).await.unwrap();
    assert!(nodes.beat("a", ONE, 17).await.unwrap());
    let before = nodes.all().await.unwrap().remove(0);
    assert!(nodes.beat("a", ONE, 18).await.unwrap());
    let after = nodes.all().await.unwrap().remove(0);
    assert_eq!((before.load, after.load, after.beat), (17, 18, before.beat + 1));
    nodes.register(node("a", TWO)).await.unwrap();
    assert!(
        !nodes.beat("a", ONE, 1).await.unwrap(),
        "another run has the name"
    );
    nodes.remove(TWO).await.unwrap();
    assert!(!nodes.beat("a", TWO, 1).await.unwrap(), "it was removed");
}

async fn a_lease_is_taken_as_it_was_seen(engine: Engine) {
    let log = Real::start(engine).await;
    let nodes = &log.store.nodes;
    let taken = nodes.take(ONE, claims(&[("b", 0), ("a", 0)])).await.unwrap();
    assert_eq!(taken, [lease("a", ONE, 1), lease("b", ONE, 1)]);
    let again = nodes.take(ONE, claims(&[("a", 0), ("b", 0)])).await.unwrap();
    assert_eq!(again, taken, "to ask again changes nothing");
    // Whoever saw it as it was before is too late, and gets what nobody has.
    let late = nodes
        .take(TWO, claims(&[("a", 0), ("b", 1), ("c", 0)]))
        .await
        .unwrap();
    assert_eq!(late, [lease("b", TWO, 2), lease("c", TWO, 1)]);
    // A holder takes its own once more, and so keeps it from somebody who saw the number before.
    assert_eq!(
        nodes.take(ONE, claims(&[("a", 1)])).await.unwrap(),
        [lease("a", ONE, 2)]
    );
    assert!(nodes.take(TWO, claims(&[("a", 1)])).await.unwrap().is_empty());
    let stored = nodes.leases().await.unwrap();
    let stored: Vec<_> = stored
        .iter()
        .map(|lease| (&*lease.name, lease.run, lease.fencing))
        .collect();
    assert_eq!(
        stored,
        [("a", Some(ONE), 2), ("b", Some(TWO), 2), ("c", Some(TWO), 1)]
    );
}

async fn of_many_who_want_a_lease_one_gets_it(engine: Engine) {
    let log = Real::start(engine).await;
    for seen in 0..5 {
        let wanting = (1..=8).map(|run| {
            let nodes = Arc::clone(&log.store.nodes);
            // Not in one order: nobody waits for anybody in a circle.
            let mut wanted = claims(&[("a", seen), ("b", seen), ("c", seen)]);
            wanted.rotate_left(usize::try_from(run).unwrap() % 3);
            tokio::spawn(async move { nodes.take(RunId(run), wanted).await.unwrap() })
        });
        let mut taken = Vec::new();
        for wanting in wanting.collect::<Vec<_>>() {
            taken.extend(wanting.await.unwrap());
        }
        taken.sort_by(|one, other| one.name.cmp(&other.name));
        let numbers: Vec<_> = taken.iter().map(|lease| (&*lease.name, lease.fencing)).collect();
        assert_eq!(numbers, [("a", seen + 1), ("b", seen + 1), ("c", seen + 1)]);
    }
}

async fn what_is_given_back_is_free(engine: Engine) {
    let log = Real::start(engine).await;
    let nodes = &log.store.nodes;
    nodes.take(ONE, claims(&[("a", 0), ("b", 0)])).await.unwrap();
    nodes.take(TWO, claims(&[("b", 1)])).await.unwrap();
    for _ in 0..2 {
        nodes.give_back(ONE, vec!["a".into(), "b".into()]).await.unwrap();
    }
    let stored = nodes.leases().await.unwrap();
    let held: Vec<_> = stored.iter().map(|lease| (&*lease.name, lease.run)).collect();
    assert_eq!(held, [("a", None), ("b", Some(TWO))]);
    assert_eq!(
        nodes.take(TWO, claims(&[("a", 1)])).await.unwrap(),
        [lease("a", TWO, 2)]
    );
}

async fn who_has_lost_a_lease_stores_nothing(engine: Engine) {
    let log = Real::start(engine).await;
    let (nodes, readers) = (&log.store.nodes, &log.store.readers);
    let id = ReaderId {
        name: "r".into(),
        shard: 0,
    };
    readers.open(&id, Position(0), None, 1).await.unwrap();
    let first = nodes.take(ONE, claims(&[("a", 0)])).await.unwrap().remove(0);
    let step = |lease: &Lease, from, to| Advance {
        id: id.clone(),
        track: Track::Log,
        lease: lease.clone(),
        from: Position(from),
        to: Position(to),
        records: 1,
        now: 1,
    };
    readers
        .advance(step(&first, 0, 1), Effects::none())
        .await
        .unwrap();
    let second = nodes.take(TWO, claims(&[("a", 1)])).await.unwrap().remove(0);
    let refused = readers.advance(step(&first, 1, 2), Effects::none()).await;
    assert!(
        matches!(&refused, Err(StoreError::LeaseLost(name)) if name == "a"),
        "{refused:?}"
    );
    readers
        .advance(step(&second, 1, 2), Effects::none())
        .await
        .unwrap();
    nodes.give_back(TWO, vec!["a".into()]).await.unwrap();
    let refused = readers.advance(step(&second, 2, 3), Effects::none()).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
    let stored = readers.get(&id).await.unwrap().unwrap();
    assert_eq!(stored.position, Position(2));
}
