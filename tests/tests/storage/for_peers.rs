//! What storage keeps for peers beside events: bounded, in order, dropped when it has arrived or is too old.

use maru::store::encryption::to_device::Sending;
use maru::store::federation::outgoing::ForPeer;
use maru::store::federation::peer_messages::{Delivered, PeerMessage};
use maru::store::log::{Change, DeviceListChange, Record};
use maru::store::waiting_quota::{QueueLimits, Shares};
use maru_protocol::cursor::Position;
use maru_tests::{TestServer, on_both_engines};
use ruma::{OwnedServerName, OwnedUserId, server_name, user_id};

on_both_engines!(
    a_queue_holds_so_much_and_no_more,
    what_waits_is_read_in_order_and_page_by_page,
    what_is_too_old_is_dropped,
);

/// When the messages are sent, in milliseconds since 1970: not so long ago that the server itself drops them.
const SENT_AT: i64 = 4_000_000_000_000;

fn peer() -> OwnedServerName {
    server_name!("peer.example").to_owned()
}

fn alice(server: &TestServer) -> OwnedUserId {
    server.parts().identity.user("alice").unwrap()
}

/// Shares of somebody who is alone.
fn alone(limits: QueueLimits) -> Shares {
    Shares {
        of_sender: limits,
        certain: limits,
        of_server: limits,
        of_all: limits,
        most: limits,
    }
}

/// Sends messages with these contents in one request; how many are refused.
async fn send(server: &TestServer, transaction: &str, contents: &[&str], limits: QueueLimits) -> usize {
    let message = |(n, content): (usize, &&str)| PeerMessage {
        server_name: peer(),
        message_id: format!("{transaction}-{n}"),
        sender: alice(server),
        user_id: user_id!("@bob:peer.example").to_owned(),
        device_id: "PHONE".into(),
        event_type: "org.example.hello".into(),
        content: (*content).to_owned(),
        sent_at: SENT_AT,
    };
    let sending = Sending {
        sender: alice(server),
        sender_device: "DESK".into(),
        event_type: "org.example".to_owned(),
        transaction_id: transaction.to_owned(),
        messages: Vec::new(),
        elsewhere: contents.iter().enumerate().map(message).collect(),
        now_ms: SENT_AT,
    };
    let store = &server.parts().store;
    let shares = alone(limits);
    let sent = store
        .encryption
        .send_to_device(sending, shares, shares)
        .await
        .unwrap();
    sent.refused.values().map(Vec::len).sum()
}

async fn waiting(server: &TestServer, after: Position, limit: usize) -> (Vec<String>, Position) {
    let store = &server.parts().store;
    let (items, reached) = store
        .federation
        .others_for(&peer(), after, store.log.position(), limit)
        .await
        .unwrap();
    let name = |(_, item): (Position, ForPeer)| match item {
        ForPeer::Message(message) => message.message_id,
        ForPeer::DeviceList(user_id) => user_id.to_string(),
        ForPeer::Receipt(..) => "a receipt".to_owned(),
    };
    (items.into_iter().map(name).collect(), reached)
}

async fn a_queue_holds_so_much_and_no_more(server: TestServer) {
    let limits = QueueLimits {
        messages: 3,
        bytes: 20,
    };
    // In bytes, not in characters.
    assert_eq!(send(&server, "a", &["{\"ä\":1}", "{\"b\":2}"], limits).await, 0);
    assert_eq!(
        send(&server, "a", &["{}"], limits).await,
        0,
        "the same transaction"
    );
    assert_eq!(send(&server, "b", &["{\"long\":1}", "{}", "{}"], limits).await, 2);
    let (ids, _) = waiting(&server, Position::START, 10).await;
    assert_eq!(ids, ["a-0", "a-1", "b-1"]);
    let delivered = Delivered {
        server_name: peer(),
        up_to: server.parts().store.log.position(),
    };
    server
        .parts()
        .store
        .federation
        .drop_delivered(delivered)
        .await
        .unwrap();
    assert_eq!(waiting(&server, Position::START, 10).await.0, [""; 0]);
    assert_eq!(send(&server, "c", &["{\"long\":1}", "{}", "{}"], limits).await, 0);
}

const MANY: QueueLimits = QueueLimits {
    messages: 1000,
    bytes: 1 << 20,
};

async fn what_waits_is_read_in_order_and_page_by_page(server: TestServer) {
    let user = server.user("alice").await;
    let room = user.create_room(serde_json::json!({})).await;
    let store = &server.parts().store;
    let room = store
        .rooms
        .room((&*room).try_into().unwrap())
        .await
        .unwrap()
        .unwrap();
    let nid = room.nid;
    let interested = format!(
        "INSERT INTO interests (server_name, room, from_position) VALUES ('{}', {nid}, 1)",
        peer()
    );
    server.data().run(&interested).await;
    let start = store.log.position();
    send(&server, "a", &["{}", "{}"], MANY).await;
    let changed = || {
        Change::from(Record::DeviceList(DeviceListChange {
            user_id: alice(&server),
            own: true,
            tell: [].into(),
            for_one: false,
            servers: [].into(),
        }))
    };
    store.log.append(changed()).await.unwrap();
    send(&server, "b", &["{}"], MANY).await;
    let name = alice(&server).to_string();
    let (all, reached) = waiting(&server, start, 10).await;
    assert_eq!(all, ["a-0", "a-1", &name, "b-0"]);
    assert_eq!(reached, store.log.position());

    // Page by page the same comes, none twice.
    let (mut after, mut read) = (start, Vec::new());
    while after < store.log.position() {
        let (page, reached) = waiting(&server, after, 1).await;
        assert!(page.len() <= 3 && reached > after);
        read.extend(page);
        after = reached;
    }
    assert_eq!(read, all);

    // Of two changes of a device list the newest counts.
    store.log.append(changed()).await.unwrap();
    assert_eq!(waiting(&server, start, 10).await.0, ["a-0", "a-1", "b-0", &name]);
}

async fn what_is_too_old_is_dropped(server: TestServer) {
    let limits = QueueLimits {
        messages: 2,
        bytes: 100,
    };
    send(&server, "a", &["{}", "{}"], limits).await;
    let store = &server.parts().store;
    let expire = async |before, most| store.federation.expire_peer_messages(before, most).await.unwrap();
    assert_eq!(expire(SENT_AT, 10).await, 0);
    assert_eq!(expire(SENT_AT + 1, 1).await, 1, "in steps");
    assert_eq!(expire(SENT_AT + 1, 10).await, 1);
    assert_eq!(expire(SENT_AT + 1, 10).await, 0);
    assert_eq!(
        send(&server, "b", &["{}", "{}"], limits).await,
        0,
        "there is room again"
    );
}
