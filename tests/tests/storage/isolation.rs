//! One bad change never fails its neighbours, and takes with it what was built on it.

use maru_protocol::cursor::Position;
use maru_tests::model::{NewChange, NotStored};

use super::logs::{Log, Stored, on_every_log};
use super::story::Room;

on_every_log!(
    one_poisoned_change_of_256_fails_alone,
    what_was_built_on_a_failed_change_fails_too,
    a_used_transaction_id_is_a_conflict,
    many_poisoned_changes_fail_alone,
);

/// A change that the log must refuse: it repeats an event.
fn poison(stored: &NewChange) -> NewChange {
    NewChange {
        records: stored.records.clone(),
        tickets: Vec::new(),
    }
}

async fn one_poisoned_change_of_256_fails_alone(log: impl Log) {
    let (mut rooms, made): (Vec<_>, Vec<_>) = (0..256).map(|_| Room::new()).unzip();
    let old = rooms[0].message("stored before").change;
    log.append(made).await;
    log.append(vec![old.clone()]).await;
    let before = log.position();

    let told: Vec<_> = rooms.iter_mut().map(|room| room.message("now")).collect();
    let mut batch: Vec<_> = told.iter().map(|told| told.change.clone()).collect();
    batch[100] = poison(&old);
    let outcome = log.append(batch).await;

    assert_eq!(outcome[100], Err(NotStored::Conflict));
    let stored: Vec<_> = outcome.into_iter().flatten().collect();
    let expected: Vec<_> = (1..=255).map(|n| Position(before.0 + n)).collect();
    assert_eq!(stored, expected, "255 succeed, in order and without a gap");
    let without_the_poisoned = told.iter().take(100).chain(&told[101..]);
    for (told, position) in without_the_poisoned.zip(expected) {
        assert_eq!(log.event(told.id()).await.unwrap().0, position);
    }
    assert!(log.event(told[100].id()).await.is_none());
}

async fn what_was_built_on_a_failed_change_fails_too(log: impl Log) {
    let (mut room, made) = Room::new();
    let (mut other, other_made) = Room::new();
    let old = room.message("stored before").change;
    log.append(vec![made, other_made]).await;
    log.append(vec![old.clone()]).await;

    let before = room.message("before the poison");
    let mut poisoned = room.message("poisoned");
    poisoned.change.records.extend(old.records.clone());
    let after: Vec<_> = (0..20).map(|n| room.message(&format!("after {n}"))).collect();
    let elsewhere: Vec<_> = (0..20)
        .map(|n| other.message(&format!("elsewhere {n}")))
        .collect();
    let mut batch = vec![before.change.clone(), poisoned.change.clone()];
    for (one, two) in after.iter().zip(&elsewhere) {
        batch.extend([one.change.clone(), two.change.clone()]);
    }
    let outcome = log.append(batch).await;

    assert!(outcome[0].is_ok(), "what came before stands");
    assert_eq!(outcome[1], Err(NotStored::Conflict));
    let is_stale = |stored: &Stored| *stored == Err(NotStored::StaleHead);
    assert!(outcome[2..].iter().step_by(2).all(is_stale), "{outcome:?}");
    assert!(outcome[3..].iter().step_by(2).all(Stored::is_ok), "{outcome:?}");
    assert!(log.event(poisoned.id()).await.is_none());
    assert!(log.event(after[0].id()).await.is_none());
    assert!(log.event(elsewhere[19].id()).await.is_some());

    let again = log.append(vec![after[0].change.clone()]).await;
    assert_eq!(again, [Err(NotStored::StaleHead)], "the old head stays stale");
}

async fn a_used_transaction_id_is_a_conflict(log: impl Log) {
    let (mut room, made) = Room::new();
    log.append(vec![made]).await;
    let first = room.message_as("one", "PHONE", "same");
    assert!(log.append(vec![first.change.clone()]).await[0].is_ok());
    let other_device = room.message_as("two", "TABLET", "same");
    assert!(log.append(vec![other_device.change.clone()]).await[0].is_ok());
    let again = room.message_as("three", "PHONE", "same");
    assert_eq!(
        log.append(vec![again.change.clone()]).await,
        [Err(NotStored::Conflict)]
    );
    assert!(
        log.event(again.id()).await.is_none(),
        "the event goes with its transaction id"
    );
}

async fn many_poisoned_changes_fail_alone(log: impl Log) {
    let (mut rooms, made): (Vec<_>, Vec<_>) = (0..64).map(|_| Room::new()).unzip();
    let old = rooms[0].message("stored before").change;
    log.append(made).await;
    log.append(vec![old.clone()]).await;
    let is_bad = |n: usize| n.is_multiple_of(3);
    let batch = rooms.iter_mut().enumerate().map(|(n, room)| match is_bad(n) {
        true => poison(&old),
        false => room.message("now").change,
    });
    let outcome = log.append(batch.collect()).await;
    for (n, stored) in outcome.iter().enumerate() {
        assert_eq!(stored.is_err(), is_bad(n), "{n}: {stored:?}");
    }
}
