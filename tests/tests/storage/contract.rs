//! Positions, events, states, and everything of which the newest counts.

use maru::store::accounts::account_data::AccountData;
use maru::store::encryption::to_device::ToDevice;
use maru::store::log::Record;
use maru::store::rooms::events::{Direction, Redaction};
use maru::store::rooms::receipts::Receipt;
use maru_protocol::cursor::{Place, Position};
use maru_protocol::event::redact;
use maru_protocol::state::StateNid;
use maru_protocol::version::RoomVersion;
use maru_tests::model::NewChange;

use super::logs::{Log, on_every_log};
use super::story::{Room, Told, user};

on_every_log!(
    positions_have_no_gaps,
    events_are_read_back,
    long_timelines_come_whole,
    a_restart_keeps_everything,
    every_state_is_read_back,
    the_newest_membership_counts,
    the_newest_receipt_counts,
    the_newest_account_data_count,
    messages_to_devices_keep_their_order,
    a_redaction_takes_the_content_away,
);

/// Appends what must be stored.
async fn stored(log: &impl Log, changes: Vec<NewChange>) -> Vec<Position> {
    let stored = log.append(changes).await;
    stored.into_iter().map(|position| position.unwrap()).collect()
}

fn changes(told: &[Told]) -> Vec<NewChange> {
    told.iter().map(|told| told.change.clone()).collect()
}

async fn positions_have_no_gaps(log: impl Log) {
    let (mut rooms, made): (Vec<_>, Vec<_>) = (0..3).map(|_| Room::new()).unzip();
    let first = stored(&log, made).await;
    assert_eq!(first, [Position(1), Position(2), Position(3)]);
    let messages = (0..300).map(|n| rooms[n % 3].message(&format!("message {n}")).change);
    let positions = stored(&log, messages.collect()).await;
    let expected: Vec<_> = (4..304).map(Position).collect();
    assert_eq!(positions, expected, "in the order in which they were appended");
    assert_eq!(log.position(), Position(303));
}

async fn events_are_read_back(log: impl Log) {
    let (mut room, made) = Room::new();
    let (mut other, other_made) = Room::new();
    stored(&log, vec![made, other_made]).await;
    let told: Vec<_> = (0..40).map(|n| room.message(&format!("{n} 안녕 🦊"))).collect();
    let positions = stored(&log, changes(&told)).await;
    stored(&log, vec![other.message("elsewhere").change]).await;

    for (told, position) in told.iter().zip(positions) {
        let (read, place, json) = log.event(told.id()).await.unwrap();
        assert_eq!((read, place), (position, told.stored.place));
        assert_eq!(json, *told.stored.event.json, "byte for byte");
    }
    assert!(log.event(ruma::event_id!("$unknown")).await.is_none());

    // The create event has place 1, the messages 2 to 41.
    let ids: Vec<_> = told.iter().map(|told| told.id().to_string()).collect();
    let newest = log
        .timeline(room.nid, Place(i64::MAX), Direction::Backward, 3)
        .await;
    assert_eq!(newest, [&*ids[39], &ids[38], &ids[37]]);
    assert_eq!(
        log.timeline(room.nid, Place(4), Direction::Backward, 2).await,
        [&*ids[1], &ids[0]]
    );
    assert_eq!(
        log.timeline(room.nid, Place(2), Direction::Forward, 100).await,
        ids
    );
    assert!(
        log.timeline(room.nid, Place(42), Direction::Forward, 10)
            .await
            .is_empty()
    );
}

async fn long_timelines_come_whole(log: impl Log) {
    let (mut room, made) = Room::new();
    stored(&log, vec![made]).await;
    let told: Vec<_> = (0..600)
        .map(|n| room.message(&format!("{n} \"quoted\" \\ \n \u{1} \u{7f} é 🦊")))
        .collect();
    stored(&log, changes(&told)).await;
    let mut ids: Vec<_> = told.iter().map(|told| told.id().to_string()).collect();
    let first = told.first().and_then(|told| told.stored.place).unwrap();

    let forward = log.timeline(room.nid, first, Direction::Forward, 1000).await;
    assert_eq!(forward, ids, "all of them, in their order");
    let exactly = log.timeline(room.nid, first, Direction::Forward, 500).await;
    assert_eq!(exactly, ids[..500]);
    ids.reverse();
    let backward = log
        .timeline(room.nid, Place(i64::MAX), Direction::Backward, 600)
        .await;
    assert_eq!(backward, ids);
    let (_, _, json) = log.event(told[0].id()).await.unwrap();
    assert_eq!(json, *told[0].stored.event.json);
}

async fn a_restart_keeps_everything(log: impl Log) {
    let (mut room, made) = Room::new();
    stored(&log, vec![made]).await;
    let told = room.message_as("kept", "PHONE", "one");
    let position = stored(&log, vec![told.change.clone()]).await[0];

    let log = log.restart().await;
    assert_eq!(log.position(), position);
    assert_eq!(log.event(told.id()).await.unwrap().0, position);
    let transaction = |device, id| log.transaction(user_alice(), device, "send", id);
    assert_eq!(
        transaction("PHONE", "one").await.as_deref(),
        Some(told.id().as_str())
    );
    assert_eq!(transaction("TABLET", "one").await, None);
    assert_eq!(transaction("PHONE", "two").await, None);
    let next = stored(&log, vec![room.message("after").change]).await;
    assert_eq!(next, [position.next()], "the log goes on where it was");
}

fn user_alice() -> &'static ruma::UserId {
    ruma::user_id!("@alice:story.example")
}

async fn every_state_is_read_back(log: impl Log) {
    let (mut room, made) = Room::new();
    stored(&log, vec![made]).await;
    let mut states = vec![room.state.clone()];
    let mut told = Vec::new();
    for n in 0..100 {
        told.push(room.membership(&format!("user{n}"), "join"));
        states.push(room.state.clone());
    }
    stored(&log, changes(&told)).await;
    let log = log.restart().await;
    for state in states {
        let read = log.state(state.nid().unwrap()).await;
        assert_eq!(read.entries(), state.entries());
    }
    let last = StateNid(told[99].stored.nid.0);
    assert_eq!(log.state(last).await.events().len(), 101);
}

async fn the_newest_membership_counts(log: impl Log) {
    let (mut room, made) = Room::new();
    let (mut other, other_made) = Room::new();
    stored(&log, vec![made, other_made]).await;
    // Two of one user in one commit, and one more later.
    let told = [
        room.membership("bob", "invite"),
        room.membership("bob", "join"),
        other.membership("bob", "join"),
    ];
    let positions = stored(&log, changes(&told)).await;
    let bob = user("bob");
    let expected = [
        (room.nid, "join".to_owned(), positions[1]),
        (other.nid, "join".to_owned(), positions[2]),
    ];
    assert_eq!(log.memberships_of(&bob).await, expected);
    let left = stored(&log, vec![room.membership("bob", "leave").change]).await[0];
    let expected = [
        (other.nid, "join".to_owned(), positions[2]),
        (room.nid, "leave".to_owned(), left),
    ];
    assert_eq!(log.memberships_of(&bob).await, expected);
    assert!(log.memberships_of(&user("carol")).await.is_empty());
}

async fn the_newest_receipt_counts(log: impl Log) {
    let (mut room, made) = Room::new();
    stored(&log, vec![made]).await;
    let messages: Vec<_> = (0..3).map(|n| room.message(&n.to_string())).collect();
    stored(&log, changes(&messages)).await;
    let receipt = |message: usize, thread: &str| Receipt {
        room: room.nid,
        user_id: user("bob"),
        receipt_type: "m.read".into(),
        thread: thread.to_owned(),
        event_id: messages[message].id().clone(),
        place: messages[message].stored.place.unwrap(),
        ts: 5,
        own: true,
    };
    let read = [receipt(0, ""), receipt(1, ""), receipt(0, "main")];
    stored(&log, read.iter().cloned().map(one).collect()).await;
    assert_eq!(log.receipts(room.nid).await, [receipt(1, ""), receipt(0, "main")]);
    stored(&log, vec![one(receipt(2, ""))]).await;
    assert_eq!(log.receipts(room.nid).await, [receipt(0, "main"), receipt(2, "")]);

    fn one(receipt: Receipt) -> NewChange {
        one_record(Record::Receipt(receipt))
    }
}

async fn the_newest_account_data_count(log: impl Log) {
    let data = |user_name: &str, data_type: &str, content: &str| AccountData {
        user_id: user(user_name),
        room: 0,
        data_type: data_type.to_owned(),
        content: content.to_owned(),
    };
    let all = [
        data("alice", "m.direct", "{}"),
        data("bob", "m.direct", "{}"),
        data("alice", "m.direct", r#"{"@b:x":["!r:x"]}"#),
        data("alice", "org.example", r#"{"n":1}"#),
    ];
    stored(
        &log,
        all.iter()
            .cloned()
            .map(Record::AccountData)
            .map(one_record)
            .collect(),
    )
    .await;
    assert_eq!(log.account_data(&user("alice")).await, all[2..]);
    assert_eq!(log.account_data(&user("bob")).await, all[1..2]);
}

async fn messages_to_devices_keep_their_order(log: impl Log) {
    let message = |device: &str, n: usize| {
        one_record(Record::ToDevice(ToDevice {
            user_id: user("bob"),
            device_id: device.to_owned(),
            sender: user("alice"),
            server: None,
            json: format!(r#"{{"type":"m.test","n":{n}}}"#),
        }))
    };
    let positions = stored(&log, (0..10).map(|n| message(["A", "B"][n % 2], n)).collect()).await;
    let read = log.to_device(&user("bob"), "A", positions[2]).await;
    let expected: Vec<_> = [4, 6, 8]
        .map(|n| (positions[n], format!(r#"{{"type":"m.test","n":{n}}}"#)))
        .into();
    assert_eq!(read, expected);
}

async fn a_redaction_takes_the_content_away(log: impl Log) {
    let (mut room, made) = Room::new();
    let target = room.message("a secret");
    stored(&log, vec![made, target.change.clone()]).await;
    let mut redaction = room.message("stands for the redaction");
    redaction.change.records.push(Record::Redaction(Redaction {
        target: target.stored.nid,
        room: room.nid,
        event: redact(&target.stored.event, RoomVersion::V11).unwrap().into(),
        by: redaction.id().clone(),
    }));
    let position = stored(&log, vec![redaction.change.clone()]).await[0];
    let log = log.restart().await;
    let (at, place, json) = log.event(target.id()).await.unwrap();
    assert_eq!(
        (at, place),
        (Position(2), Some(Place(2))),
        "it stays where it was"
    );
    assert!(!json.contains("secret"), "{json}");
    assert_eq!(
        position,
        Position(4),
        "the redaction takes a position after its event"
    );
}

fn one_record(record: Record) -> NewChange {
    NewChange {
        records: vec![record],
        tickets: Vec::new(),
    }
}
