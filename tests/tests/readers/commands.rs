//! What the admin sees of readers, and does with them.

use maru::admin::{AdminCommand, AdminReply, ReaderLine, ReadersCommand, execute};
use maru::store::nodes::Claim;
use maru::store::readers::{Advance, NewSetAside, ReaderId, Track};
use maru_protocol::cursor::Position;
use maru_tests::{TestServer, on_both_engines};

on_both_engines!(readers_are_listed_paused_resumed_and_rewound);

async fn asked(server: &TestServer, command: ReadersCommand) -> AdminReply {
    execute(server.parts(), AdminCommand::Readers(command)).await
}

/// But for the reader that every server has.
async fn listed(server: &TestServer) -> Vec<ReaderLine> {
    match asked(server, ReadersCommand::List).await {
        AdminReply::Readers { mut readers } => {
            readers.retain(|reader| reader.reader != "search/0");
            readers
        }
        other => panic!("{other:?}"),
    }
}

async fn readers_are_listed_paused_resumed_and_rewound(server: TestServer) {
    assert_eq!(listed(&server).await, []);
    let name = || "old".to_owned();
    let refused = asked(&server, ReadersCommand::Pause { name: name() }).await;
    assert!(matches!(refused, AdminReply::Refused { .. }), "{refused:?}");

    // One that no program has any more.
    let store = &server.parts().store;
    let id = ReaderId {
        name: "old".into(),
        shard: 0,
    };
    store.readers.open(&id, Position(0), None, 1).await.unwrap();
    let claim = Claim {
        name: "old".into(),
        seen: 0,
    };
    let lease = store
        .nodes
        .take(server.parts().nodes.run(), vec![claim])
        .await
        .unwrap()
        .remove(0);
    let step = Advance {
        id,
        track: Track::Log,
        lease,
        from: Position(0),
        to: Position(3),
        records: 4,
        now: 1,
    };
    let record = NewSetAside {
        position: Position(3),
        records: "event".to_owned(),
        why: "it is odd".to_owned(),
    };
    assert!(store.readers.go_past(step, record).await.unwrap());
    let line = listed(&server).await.remove(0);
    assert_eq!(
        (&*line.reader, line.position, line.records, line.set_aside),
        ("old/0", 3, 4, 1)
    );
    let AdminReply::SetAside { records } = asked(&server, ReadersCommand::SetAside { name: name() }).await
    else {
        panic!("it is kept");
    };
    assert_eq!((records[0].position, &*records[0].why), (3, "it is odd"));

    asked(&server, ReadersCommand::Pause { name: name() }).await;
    assert!(listed(&server).await[0].paused);
    asked(&server, ReadersCommand::Resume { name: name() }).await;
    assert!(!listed(&server).await[0].paused);
    let rewind = |position, skip| ReadersCommand::Rewind {
        name: name(),
        position,
        skip,
    };
    let refused = asked(&server, rewind(4, false)).await;
    // The log of an empty server may not have come that far, and nobody goes past its end.
    let newest = store.log.position().0;
    assert!(
        matches!(refused, AdminReply::Refused { .. }) || newest <= 3,
        "{refused:?}"
    );
    asked(&server, rewind(2, false)).await;
    let line = listed(&server).await.remove(0);
    assert_eq!((line.position, line.set_aside), (2.min(newest), 0));
}
