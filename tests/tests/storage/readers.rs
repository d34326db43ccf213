//! What cursors of readers promise: they move from where they stand, with their effects or not at all, and never back but
//! when somebody rewinds them.

use maru::store::StoreError;
use maru::store::accounts::account_data::AccountData;
use maru::store::log::Record;
use maru::store::nodes::{Claim, Lease, RunId};
use maru::store::readers::{Advance, Effects, NewSetAside, ReaderId, Track};
use maru_protocol::cursor::Position;
use maru_tests::{Engine, for_both_engines};

use super::logs::{Log, Real};
use super::story::user;

for_both_engines!(
    a_reader_begins_where_it_is_told_and_goes_on_where_it_was,
    a_cursor_moves_from_where_it_stands,
    effects_are_stored_with_the_cursor_or_not_at_all,
    of_many_who_move_a_cursor_one_does,
    what_a_reader_goes_past_is_kept,
    a_reader_goes_past_so_much_and_then_rests,
    a_paused_reader_does_not_move,
    a_rewound_reader_begins_again,
);

fn id(shard: u32) -> ReaderId {
    ReaderId {
        name: "count".into(),
        shard,
    }
}

async fn lease(log: &Real) -> Lease {
    let claim = Claim {
        name: "reader/count/0".into(),
        seen: 0,
    };
    log.store
        .nodes
        .take(RunId(1), vec![claim])
        .await
        .unwrap()
        .remove(0)
}

fn step(lease: &Lease, from: i64, to: i64) -> Advance {
    Advance {
        id: id(0),
        track: Track::Log,
        lease: lease.clone(),
        from: Position(from),
        to: Position(to),
        records: 2,
        now: 7,
    }
}

fn effect(n: i64) -> Effects {
    Effects::records(vec![Record::AccountData(AccountData {
        user_id: user("alice"),
        room: n,
        data_type: "m.count".to_owned(),
        content: "{}".to_owned(),
    })])
}

async fn effects(log: &Real) -> Vec<i64> {
    let data = log.account_data(&user("alice")).await;
    data.iter().map(|data| data.room).collect()
}

async fn position(log: &Real) -> i64 {
    log.store.readers.get(&id(0)).await.unwrap().unwrap().position.0
}

async fn a_reader_begins_where_it_is_told_and_goes_on_where_it_was(engine: Engine) {
    let log = Real::start(engine).await;
    let readers = &log.store.readers;
    assert!(readers.get(&id(0)).await.unwrap().is_none());
    assert_eq!(readers.furthest_behind().await.unwrap(), None);
    let opened = readers.open(&id(0), Position(5), None, 7).await.unwrap();
    assert_eq!(
        (opened.position, opened.paused, opened.records),
        (Position(5), false, 0)
    );
    assert_eq!(
        readers.open(&id(0), Position(9), None, 8).await.unwrap(),
        opened,
        "it has begun"
    );
    readers.open(&id(1), Position(3), None, 7).await.unwrap();
    let lease = lease(&log).await;
    readers
        .advance(step(&lease, 5, 11), Effects::none())
        .await
        .unwrap();
    let log = log.restart().await;
    let all = log.store.readers.all().await.unwrap();
    let all: Vec<_> = all
        .iter()
        .map(|stored| (stored.id.shard, stored.position.0, stored.records))
        .collect();
    assert_eq!(all, [(0, 11, 2), (1, 3, 0)]);
    assert_eq!(
        log.store.readers.furthest_behind().await.unwrap(),
        Some(Position(3))
    );
    assert!(log.store.readers.forget("count").await.unwrap());
    assert!(!log.store.readers.forget("count").await.unwrap());
    assert!(log.store.readers.all().await.unwrap().is_empty());
}

async fn a_cursor_moves_from_where_it_stands(engine: Engine) {
    let log = Real::start(engine).await;
    let (readers, lease) = (&log.store.readers, lease(&log).await);
    readers.open(&id(0), Position(5), None, 1).await.unwrap();
    for (from, to) in [(4, 6), (6, 7), (5, 4)] {
        let refused = readers.advance(step(&lease, from, to), Effects::none()).await;
        assert!(
            matches!(refused, Err(StoreError::CursorMoved(_))),
            "{from} to {to}: {refused:?}"
        );
    }
    readers
        .advance(step(&lease, 5, 6), Effects::none())
        .await
        .unwrap();
    let again = readers.advance(step(&lease, 5, 6), Effects::none()).await;
    assert!(again.is_err(), "done once already");
    assert_eq!(position(&log).await, 6);
}

async fn effects_are_stored_with_the_cursor_or_not_at_all(engine: Engine) {
    let log = Real::start(engine).await;
    let (readers, held) = (&log.store.readers, lease(&log).await);
    readers.open(&id(0), Position(0), None, 1).await.unwrap();
    readers.advance(step(&held, 0, 1), effect(1)).await.unwrap();
    assert_eq!(log.position(), Position(1), "it is in the log");
    // The cursor stands elsewhere; the lease is another's.
    assert!(readers.advance(step(&held, 0, 1), effect(2)).await.is_err());
    let lost = Lease {
        fencing: held.fencing - 1,
        ..held.clone()
    };
    let refused = readers.advance(step(&lost, 1, 2), effect(3)).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost(_))), "{refused:?}");
    // What the database refuses moves nothing either.
    let nul = Effects::records(vec![Record::AccountData(AccountData {
        user_id: user("alice"),
        room: 4,
        data_type: "m.\0".to_owned(),
        content: "{}".to_owned(),
    })]);
    assert!(readers.advance(step(&held, 1, 2), nul).await.is_err());
    assert_eq!((effects(&log).await, position(&log).await), (vec![1], 1));
}

async fn of_many_who_move_a_cursor_one_does(engine: Engine) {
    let log = Real::start(engine).await;
    let lease = lease(&log).await;
    log.store
        .readers
        .open(&id(0), Position(0), None, 1)
        .await
        .unwrap();
    for from in 0..5 {
        let moving = (0..8).map(|n| {
            let (readers, step) = (log.store.readers.clone(), step(&lease, from, from + 1));
            // Some with effects in the log, some without: they take other ways to the database.
            let effects = if n % 2 == 0 {
                effect(from * 8 + n)
            } else {
                Effects::none()
            };
            tokio::spawn(async move { readers.advance(step, effects).await.is_ok() })
        });
        let mut moved = 0;
        for moving in moving.collect::<Vec<_>>() {
            moved += usize::from(moving.await.unwrap());
        }
        assert_eq!(moved, 1, "from {from}");
    }
    assert_eq!(position(&log).await, 5);
    assert!(effects(&log).await.len() <= 5);
}

fn aside(position: i64, why: &str) -> NewSetAside {
    NewSetAside {
        position: Position(position),
        records: "event".to_owned(),
        why: why.to_owned(),
    }
}

async fn what_a_reader_goes_past_is_kept(engine: Engine) {
    let log = Real::start(engine).await;
    let (readers, lease) = (&log.store.readers, lease(&log).await);
    readers.open(&id(0), Position(0), None, 1).await.unwrap();
    readers
        .note_failure(step(&lease, 0, 0), 4, "it is odd".to_owned())
        .await
        .unwrap();
    let failing = readers.get(&id(0)).await.unwrap().unwrap();
    assert_eq!(
        (failing.failures, failing.last_error.as_deref()),
        (4, Some("it is odd"))
    );
    assert!(
        readers
            .go_past(step(&lease, 0, 3), aside(3, "it is odd"))
            .await
            .unwrap()
    );
    let refused = readers.go_past(step(&lease, 0, 3), aside(3, "again")).await;
    assert!(matches!(refused, Err(StoreError::CursorMoved(_))), "{refused:?}");
    let kept = readers.set_aside("count").await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].position, &*kept[0].records, &*kept[0].why),
        (Position(3), "event", "it is odd")
    );
    let stored = readers.get(&id(0)).await.unwrap().unwrap();
    assert_eq!(
        (stored.position, stored.failures, stored.set_aside),
        (Position(3), 0, 1)
    );
    assert!(readers.set_aside("other").await.unwrap().is_empty());
}

async fn a_reader_goes_past_so_much_and_then_rests(engine: Engine) {
    let log = Real::start(engine).await;
    let (readers, lease) = (&log.store.readers, lease(&log).await);
    readers.open(&id(0), Position(0), None, 1).await.unwrap();
    for n in 0..100 {
        assert!(
            readers
                .go_past(step(&lease, n, n + 1), aside(n + 1, "odd"))
                .await
                .unwrap(),
            "{n}"
        );
    }
    assert!(
        !readers
            .go_past(step(&lease, 100, 101), aside(101, "odd too"))
            .await
            .unwrap()
    );
    let stored = readers.get(&id(0)).await.unwrap().unwrap();
    assert_eq!(
        (stored.position, stored.paused, stored.set_aside),
        (Position(100), true, 100)
    );
    assert!(stored.last_error.unwrap().contains("odd too"));
}

async fn a_paused_reader_does_not_move(engine: Engine) {
    let log = Real::start(engine).await;
    let (readers, lease) = (&log.store.readers, lease(&log).await);
    assert!(!readers.set_paused(&id(0), true).await.unwrap(), "there is none");
    readers.open(&id(0), Position(0), None, 1).await.unwrap();
    assert!(readers.set_paused(&id(0), true).await.unwrap());
    let refused = readers.advance(step(&lease, 0, 1), effect(1)).await;
    assert!(matches!(refused, Err(StoreError::CursorMoved(_))), "{refused:?}");
    assert!(readers.set_paused(&id(0), false).await.unwrap());
    readers.advance(step(&lease, 0, 1), effect(1)).await.unwrap();
    assert_eq!(effects(&log).await, [1]);
}

async fn a_rewound_reader_begins_again(engine: Engine) {
    let log = Real::start(engine).await;
    let (readers, lease) = (&log.store.readers, lease(&log).await);
    readers.open(&id(0), Position(0), None, 1).await.unwrap();
    for n in 0..4 {
        readers
            .go_past(step(&lease, n, n + 1), aside(n + 1, "odd"))
            .await
            .unwrap();
    }
    assert!(
        !readers.rewind(&id(0), Position(5), false).await.unwrap(),
        "that is ahead"
    );
    assert!(readers.rewind(&id(0), Position(2), false).await.unwrap());
    let kept = readers.set_aside("count").await.unwrap();
    let kept: Vec<_> = kept.iter().map(|aside| aside.position.0).collect();
    assert_eq!(kept, [1, 2], "the others are read again");
    let under_way = readers.advance(step(&lease, 4, 5), effect(1)).await;
    assert!(
        matches!(under_way, Err(StoreError::CursorMoved(_))),
        "{under_way:?}"
    );
    readers.advance(step(&lease, 2, 3), effect(1)).await.unwrap();
    assert_eq!(position(&log).await, 3);
    assert!(
        readers.rewind(&id(0), Position(9), true).await.unwrap(),
        "what lies between is left out"
    );
    assert_eq!(position(&log).await, 9);
    readers
        .rest(step(&lease, 8, 8), "it stands elsewhere".to_owned())
        .await
        .unwrap();
    assert!(!readers.get(&id(0)).await.unwrap().unwrap().paused);
    readers
        .rest(step(&lease, 9, 9), "it is stuck".to_owned())
        .await
        .unwrap();
    let stored = readers.get(&id(0)).await.unwrap().unwrap();
    assert_eq!(
        (stored.paused, stored.last_error.as_deref()),
        (true, Some("it is stuck"))
    );
}
