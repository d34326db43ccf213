//! What is found, in which order, by page and by group, and with what around it.

use maru_tests::user::encode;
use maru_tests::{TestServer, on_both_engines};
use serde_json::{Value, json};

use super::{caught_up, found, ids, searched, searched_from};

on_both_engines!(
    words_of_all_scripts_are_found,
    names_and_topics_are_found_by_their_keys,
    filters_say_where_and_whose,
    many_results_come_page_by_page_each_once,
    the_best_come_first,
    results_come_with_what_stands_around_them,
    results_are_grouped,
    whoever_is_in_many_rooms_searches_them_all,
    whatever_is_asked_is_answered,
    long_messages_are_found_by_what_they_begin_with,
    who_searches_too_often_is_told_so,
);

async fn words_of_all_scripts_are_found(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let texts = [
        "내일 한국어능력시험 준비모임을 합니다",
        "API서버를 다시 켰습니다",
        "私は東京都に住んでいます",
        "明天的会议取消了",
        "Das Café in der Straße",
        "พรุ่งนี้มีประชุมใหญ่",
    ];
    let mut sent = Vec::new();
    for text in texts {
        sent.push(alice.send(&room, text).await);
    }
    caught_up(&server).await;
    let expected: [(&str, &[usize]); 14] = [
        ("한국", &[0]),
        ("시험", &[0]),
        ("능력시험 모임", &[0]),
        ("험", &[0]),
        ("한시", &[]),
        ("서버", &[1]),
        ("api", &[1]),
        ("API서버", &[1]),
        ("東京", &[2]),
        ("会议", &[3]),
        ("CAFE strasse", &[4]),
        ("cafe 東京", &[]),
        ("ประชุม", &[5]),
        ("니다", &[1, 0]),
    ];
    for (term, places) in expected {
        let expected: Vec<&String> = places.iter().map(|place| &sent[*place]).collect();
        assert_eq!(
            found(&alice, term).await.iter().collect::<Vec<_>>(),
            expected,
            "{term}"
        );
    }
    let answer = searched(&alice, json!({ "search_term": "CAFE, Strasse!" })).await;
    assert_eq!(answer["highlights"], json!(["CAFE", "Strasse"]));
    assert_eq!(answer["count"], 1);
}

async fn names_and_topics_are_found_by_their_keys(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice
        .create_room(json!({ "name": "blue whales", "topic": "green whales" }))
        .await;
    let said = alice.send(&room, "red whales").await;
    caught_up(&server).await;
    let by = async |keys: Value| {
        let mut criteria = json!({ "search_term": "whales", "order_by": "recent" });
        if !keys.is_null() {
            criteria["keys"] = keys;
        }
        let answer = searched(&alice, criteria).await;
        let results = answer["results"].as_array().unwrap().clone();
        let mut types: Vec<_> = results
            .iter()
            .map(|result| result["result"]["type"].clone())
            .collect();
        types.sort_by_key(ToString::to_string);
        types
    };
    assert_eq!(
        by(Value::Null).await,
        ["m.room.message", "m.room.name", "m.room.topic"]
    );
    assert_eq!(by(json!(["content.body"])).await, ["m.room.message"]);
    assert_eq!(by(json!(["content.name"])).await, ["m.room.name"]);
    assert_eq!(
        by(json!(["content.topic", "content.name"])).await,
        ["m.room.name", "m.room.topic"]
    );
    assert!(by(json!(["content.other"])).await.is_empty());
    assert_eq!(found(&alice, "red").await, [said]);
}

async fn filters_say_where_and_whose(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let one = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&one).await;
    bob.join(&other).await;
    let first = alice.send(&one, "a fox").await;
    let second = bob.send(&one, "a fox").await;
    let third = alice.send(&other, "a fox").await;
    let picture = json!({ "msgtype": "m.image", "body": "fox.png", "url": "mxc://a/b" });
    let fourth = bob.send_event(&other, "m.room.message", picture).await;
    caught_up(&server).await;
    let by = async |filter: Value| {
        let criteria = json!({ "search_term": "fox", "order_by": "recent", "filter": filter });
        ids(&searched(&alice, criteria).await)
    };
    assert_eq!(by(json!({})).await, [&*fourth, &third, &second, &first]);
    assert_eq!(by(json!({ "rooms": [one] })).await, [&*second, &first]);
    assert_eq!(by(json!({ "rooms": [] })).await, [""; 0]);
    assert_eq!(by(json!({ "rooms": ["!none:x"] })).await, [""; 0]);
    assert_eq!(by(json!({ "not_rooms": [one] })).await, [&*fourth, &third]);
    assert_eq!(by(json!({ "senders": [bob.id] })).await, [&*fourth, &second]);
    assert_eq!(by(json!({ "senders": [] })).await, [""; 0]);
    assert_eq!(by(json!({ "not_senders": [bob.id] })).await, [&*third, &first]);
    assert_eq!(
        by(json!({ "senders": [bob.id], "rooms": [one] })).await,
        [&*second]
    );
    assert_eq!(by(json!({ "contains_url": true })).await, [&*fourth]);
    assert_eq!(by(json!({ "types": ["m.room.topic"] })).await, [""; 0]);
    assert_eq!(by(json!({ "not_types": ["m.room.*"] })).await, [""; 0]);
    assert_eq!(by(json!({ "limit": 1 })).await, [&*fourth]);
}

async fn many_results_come_page_by_page_each_once(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut sent = Vec::new();
    for n in 0..130 {
        let who = if n % 10 == 0 { &bob } else { &alice };
        sent.push(who.send(&room, &format!("the number {n} of many")).await);
    }
    sent.reverse();
    caught_up(&server).await;
    for order in ["recent", "rank"] {
        let criteria = |limit: usize, filter: Value| {
            let mut criteria = json!({ "search_term": "number many", "order_by": order, "filter": filter });
            criteria["filter"]["limit"] = json!(limit);
            criteria
        };
        let (mut all, mut next, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = searched_from(&alice, criteria(30, json!({})), next.as_deref()).await;
            all.extend(ids(&page));
            assert!(page["count"].as_u64().unwrap() >= all.len() as u64, "{page}");
            pages += 1;
            match page["next_batch"].as_str() {
                Some(token) => next = Some(token.to_owned()),
                None => break,
            }
            assert!(pages < 20, "it never ends");
        }
        assert_eq!(all.len(), sent.len(), "{order}");
        if order == "recent" {
            assert_eq!(all, sent);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), sent.len(), "{order}: one came twice");
        // What a filter leaves out does not end the pages.
        let (mut of_bob, mut next) = (Vec::new(), None);
        loop {
            let filter = json!({ "not_senders": [alice.id] });
            let page = searched_from(&alice, criteria(5, filter), next.as_deref()).await;
            of_bob.extend(ids(&page));
            match page["next_batch"].as_str() {
                Some(token) => next = Some(token.to_owned()),
                None => break,
            }
        }
        assert_eq!(of_bob.len(), 13, "{order}");
    }
    let wrong =
        json!({ "search_categories": { "room_events": { "search_term": "x", "order_by": "recent" } } });
    alice
        .post("search?next_batch=t5", wrong)
        .await
        .refused(400, "M_INVALID_PARAM");
}

async fn the_best_come_first(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let best = alice.send(&room, "apple apple apple").await;
    let good = alice.send(&room, "an apple pie").await;
    let poor = alice
        .send(
            &room,
            "somebody has said that there was once an apple in this house",
        )
        .await;
    caught_up(&server).await;
    let ranked = searched(&alice, json!({ "search_term": "apple" })).await;
    assert_eq!(ids(&ranked), [&*best, &good, &poor]);
    let ranks: Vec<f64> = ranked["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["rank"].as_f64().unwrap())
        .collect();
    assert!(ranks.is_sorted_by(|one, other| one > other), "{ranks:?}");
    assert_eq!(found(&alice, "apple").await, [&*poor, &good, &best]);
    let wrong = json!({ "search_categories": { "room_events": { "search_term": "x", "order_by": "size" } } });
    alice.post("search", wrong).await.refused(400, "M_INVALID_PARAM");
}

async fn results_come_with_what_stands_around_them(server: TestServer) {
    let alice = server.user("alice").await;
    let path = format!("profile/{}/displayname", encode(&alice.id));
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    let room = alice.create_room(json!({ "name": "Room" })).await;
    let mut sent = Vec::new();
    for text in ["one", "two", "a needle", "three", "four"] {
        sent.push(alice.send(&room, text).await);
    }
    caught_up(&server).await;
    let plain = searched(&alice, json!({ "search_term": "needle" })).await;
    assert_eq!(plain["results"][0].get("context"), None, "nobody asked for it");
    assert_eq!(plain.get("state"), None);
    let context = json!({ "before_limit": 1, "after_limit": 2, "include_profile": true });
    let criteria = json!({ "search_term": "needle", "event_context": context, "include_state": true });
    let answer = searched(&alice, criteria).await;
    let context = &answer["results"][0]["context"];
    let around = |side: &str| -> Vec<String> {
        let events = context[side].as_array().unwrap().iter();
        events
            .map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(around("events_before"), [&*sent[1]]);
    assert_eq!(around("events_after"), [&*sent[3], &sent[4]]);
    assert_eq!(context["profile_info"][&alice.id]["displayname"], "Alice");
    // From there on, the client reads the timeline.
    let (start, end) = (
        context["start"].as_str().unwrap(),
        context["end"].as_str().unwrap(),
    );
    let page = |dir: &str, from: &str| format!("rooms/{room}/messages?dir={dir}&from={from}&limit=1");
    let before = alice.get(&page("b", start)).await.ok();
    assert_eq!(before["chunk"][0]["event_id"], sent[0].as_str());
    let after = alice.get(&page("f", end)).await.ok();
    assert!(after["chunk"].as_array().unwrap().is_empty(), "{after}");
    let state = answer["state"][&room].as_array().unwrap();
    assert!(
        state
            .iter()
            .any(|event| event["type"] == "m.room.name" && event["content"]["name"] == "Room")
    );
}

async fn results_are_grouped(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let one = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&one).await;
    let mut in_one = Vec::new();
    for _ in 0..5 {
        in_one.push(bob.send(&one, "grouped").await);
        alice.send(&other, "grouped").await;
    }
    in_one.reverse();
    caught_up(&server).await;
    for order in ["recent", "rank"] {
        let criteria = json!({
            "search_term": "grouped", "order_by": order, "filter": { "limit": 4 },
            "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
        });
        let answer = searched(&alice, criteria.clone()).await;
        let group = &answer["groups"]["room_id"][&one];
        let mut listed: Vec<String> = serde_json::from_value(group["results"].clone()).unwrap();
        assert_eq!(listed.len(), 2, "{answer}");
        assert_eq!(
            answer["groups"]["sender"][&alice.id]["results"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let orders = [&group["order"], &answer["groups"]["room_id"][&other]["order"]];
        assert!(
            orders.contains(&&json!(0)) && orders.contains(&&json!(1)),
            "{orders:?}"
        );
        // The rest of that group alone.
        let rest = searched_from(&alice, criteria, group["next_batch"].as_str()).await;
        listed.extend(ids(&rest));
        assert_eq!(listed, in_one, "{order}");
        assert_eq!(rest.get("next_batch"), None, "{rest}");
    }
}

async fn whoever_is_in_many_rooms_searches_them_all(server: TestServer) {
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let elsewhere = bob.create_room(json!({})).await;
    let mut sent = Vec::new();
    for n in 0..70 {
        let room = alice.create_room(json!({})).await;
        sent.push(alice.send(&room, &format!("room {n}")).await);
        bob.send(&elsewhere, &format!("room {n}")).await;
    }
    sent.reverse();
    caught_up(&server).await;
    assert_eq!(found(&alice, "room").await, sent);
    assert_eq!(found(&alice, "room 7").await, [&*sent[62]]);
    assert_eq!(found(&bob, "room").await.len(), 70);
}

async fn whatever_is_asked_is_answered(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice
        .send(
            &room,
            "quotes \" and NEAR * operators | & ! : ( ) ' \\ - ^ words:x",
        )
        .await;
    caught_up(&server).await;
    let terms = [
        "\"",
        "'",
        "*",
        "a*",
        "NEAR(quotes, 2)",
        "\"quotes",
        "'quotes' & !operators",
        "words:quotes",
        "quotes AND NOT x",
        "(((",
        ":*",
        "quotes | x",
        "\\",
        "%",
        "\u{0}",
        "quotes\u{0}operators",
        "{words}:x",
        "-quotes",
        "^quotes",
        "¶1",
        "§name",
        "rowid",
        "🦊",
        "\u{301}",
        "  ",
        "",
    ];
    for term in terms {
        found(&alice, term).await;
    }
    assert_eq!(found(&alice, "QUOTES \"operators' & words:*").await, [&*said]);
    assert_eq!(found(&alice, "near").await, [&*said]);
    assert!(found(&alice, "!?*").await.is_empty());
    assert!(found(&alice, "¶1").await.is_empty() && found(&alice, "§name").await.is_empty());
    let long = |term: String| json!({ "search_categories": { "room_events": { "search_term": term } } });
    for term in [
        "quotes ".repeat(15_000),
        "가".repeat(34_000),
        (0..100).map(|n| format!("w{n} ")).collect(),
    ] {
        alice
            .post("search", long(term))
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    assert!(found(&alice, &"가".repeat(1_300)).await.is_empty());
    // Nothing is asked for.
    assert_eq!(
        alice
            .post("search", json!({ "search_categories": {} }))
            .await
            .ok(),
        json!({ "search_categories": {} })
    );
    alice.post("search", json!({})).await.refused(400, "M_BAD_JSON");
}

async fn long_messages_are_found_by_what_they_begin_with(server: TestServer) {
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    // All bigrams of these differ: more than one message may have in the index.
    let syllables: Vec<char> = ('가'..='힣').collect();
    let varied: String = (0..100_000_usize)
        .map(|n| syllables[(n * 7_919 + n / syllables.len() * 31) % syllables.len()])
        .collect();
    let begin: String = varied.chars().take(5).collect();
    let long = alice.send(&room, &varied).await;
    let same = alice.send(&room, &"마루는말".repeat(25_000)).await;
    let word = alice.send(&room, &"x".repeat(100_000)).await;
    caught_up(&server).await;
    assert_eq!(found(&alice, &begin).await, [&*long]);
    assert_eq!(found(&alice, "말마루").await, [&*same]);
    assert_eq!(found(&alice, &"x".repeat(4_000)).await, [&*word]);
}

async fn who_searches_too_often_is_told_so(server: TestServer) {
    let limited = TestServer::start_with(server.data().engine(), |config| config.rate_limits = true).await;
    let alice = limited.user("alice").await;
    let body = json!({ "search_categories": { "room_events": { "search_term": "x" } } });
    let mut refused = None;
    for _ in 0..100 {
        let reply = alice.post("search", body.clone()).await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    refused
        .expect("the budget is spent")
        .refused(429, "M_LIMIT_EXCEEDED");
}
