//! A random history: what people do, and what a model learns of it.

use std::collections::BTreeMap;

use maru_tests::chance::Chance;
use maru_tests::user::encode;
use maru_tests::{Synced, TestServer, User};
use serde_json::{Value, json};

use super::model::{Data, Event, Model, Receipt, Room, Step, Wish};

/// Somebody's device and what it has been given.
#[derive(Debug)]
pub(crate) struct Device {
    /// Who.
    pub(crate) user: User,
    /// How it asks.
    pub(crate) wish: Wish,
    /// Its cursors, and what each has seen.
    pub(crate) cursors: Vec<(String, Step)>,
}

/// The people, their devices, and what has happened.
#[derive(Debug)]
pub(crate) struct History {
    chance: Chance,
    /// Made all rooms, is in all of them, and may do everything there.
    owner: User,
    people: Vec<User>,
    /// All devices that sync.
    pub(crate) devices: Vec<Device>,
    /// What happened.
    pub(crate) model: Model,
    /// What was done, for who reads of a failure.
    pub(crate) story: Vec<String>,
}

impl History {
    /// Several people and rooms, of whom each device has synced once.
    pub(crate) async fn begin(server: &TestServer, seed: u64) -> Self {
        let [owner, alice, bob, carol] = [
            server.user("owner").await,
            server.user("alice").await,
            server.user("bob").await,
            server.user("carol").await,
        ];
        let mut history = Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            people: vec![alice.clone(), bob.clone(), carol.clone()],
            owner,
            devices: Vec::new(),
            model: Model::default(),
            story: Vec::new(),
        };
        let everybody =
            json!({ "users_default": 60, "ban": 60, "kick": 60, "redact": 60, "state_default": 60 });
        for preset in ["public_chat", "private_chat", "public_chat"] {
            let request = json!({ "preset": preset, "power_level_content_override": everybody });
            let id = history.owner.create_room(request).await;
            let events = Vec::new();
            history.model.rooms.push(Room { id, events });
        }
        history.learn().await;
        let rooms: Vec<String> = history.model.rooms.iter().map(|room| room.id.clone()).collect();
        let second = alice.second_device().await;
        let wishes = [
            (alice, json!({}), 20),
            (second, json!({ "room": { "timeline": { "limit": 3 } } }), 3),
            (
                bob.clone(),
                json!({ "room": { "timeline": { "limit": 4, "unread_thread_notifications": true } } }),
                4,
            ),
            (
                bob,
                json!({ "room": { "rooms": [rooms[0]], "timeline": { "limit": 50 } } }),
                50,
            ),
            (
                carol.clone(),
                json!({ "room": { "timeline": { "limit": 2 }, "state": { "lazy_load_members": true } } }),
                2,
            ),
            (
                carol,
                json!({ "room": { "state": { "lazy_load_members": true } } }),
                20,
            ),
        ];
        for (user, filter, limit) in wishes {
            let room = &filter["room"];
            let wish = Wish {
                limit,
                lazy: room["state"]["lazy_load_members"] == true,
                by_thread: room["timeline"]["unread_thread_notifications"] == true,
                rooms: room["rooms"].as_array().map(|_| vec![rooms[0].clone()]),
                filter,
            };
            let cursors = Vec::new();
            history.devices.push(Device { user, wish, cursors });
        }
        for device in 0..history.devices.len() {
            history.sync(device, None).await;
        }
        history
    }

    /// Goes on with the same people on another server process.
    pub(crate) fn move_to(&mut self, server: &TestServer) {
        for device in &mut self.devices {
            device.user = device.user.on(server.api());
        }
    }

    /// One thing happens, or a device looks.
    pub(crate) async fn go_on(&mut self) {
        self.model.now += 1;
        let who = self.chance.below(self.people.len());
        let person = self.people[who].clone();
        let at = self.chance.below(self.model.rooms.len());
        let room = self.model.rooms[at].id.clone();
        let path = format!("rooms/{}", encode(&room));
        let kind = self.chance.below(40);
        match kind {
            0..=7 => self.send(&person, &room).await,
            8 | 9 => self.send(&self.owner.clone(), &room).await,
            10..=12 => self.thread(&person, at).await,
            13 => self.react(&person, at).await,
            14 => self.redact(&person, at).await,
            15..=18 => self.read(&person, at).await,
            19 => {
                let name = format!("name {}", self.model.now);
                let body = json!({ "displayname": name });
                self.tell(
                    &person,
                    "sets a name",
                    &format!("profile/{}/displayname", encode(&person.id)),
                    body,
                    true,
                )
                .await;
            }
            20..=22 => {
                self.tell(&person, "joins", &format!("{path}/join"), json!({}), false)
                    .await;
            }
            23 => {
                self.tell(&person, "leaves", &format!("{path}/leave"), json!({}), false)
                    .await;
            }
            24 | 25 => {
                let what = ["kick", "ban", "unban", "invite"][self.chance.below(4)];
                let body = json!({ "user_id": person.id });
                self.tell(&self.owner.clone(), what, &format!("{path}/{what}"), body, false)
                    .await;
            }
            26 => {
                self.tell(&person, "forgets", &format!("{path}/forget"), json!({}), false)
                    .await;
            }
            27 => {
                let (kind, key) = [("m.room.topic", "topic"), ("m.room.name", "name")][self.chance.below(2)];
                let body = json!({ key: format!("{key} {}", self.model.now) });
                self.tell(&person, kind, &format!("{path}/state/{kind}"), body, true)
                    .await;
            }
            28 => {
                let value = ["shared", "invited", "joined", "world_readable"][self.chance.below(4)];
                let state = format!("{path}/state/m.room.history_visibility");
                let body = json!({ "history_visibility": value });
                self.tell(&self.owner.clone(), value, &state, body, true).await;
            }
            29 => self.set_data(&person, "", "org.example.global").await,
            30 => self.set_data(&person, &room, "org.example.room").await,
            31 => self.set_tag(&person, &room).await,
            32 => self.ignore(&person).await,
            _ => {
                let device = self.chance.below(self.devices.len());
                let given = self.devices[device].cursors.len();
                let cursor = match self.chance.below(8) {
                    0 => None,
                    1 | 2 => Some(self.chance.below(given)),
                    _ => Some(given - 1),
                };
                self.sync(device, cursor).await;
                return;
            }
        }
        self.learn().await;
    }

    /// What a device is answered that comes with one of its cursors, now.
    pub(crate) async fn ask(&self, device: usize, cursor: Option<usize>) -> Synced {
        let device = &self.devices[device];
        let since = cursor.map(|cursor| format!("&since={}", encode(&device.cursors[cursor].0)));
        let filter = encode(&device.wish.filter.to_string());
        let query = format!(
            "timeout=0&set_presence=offline&filter={filter}{}",
            since.unwrap_or_default()
        );
        device.user.sync_with(&query).await
    }

    /// Checks an answer that a device was given now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, device: usize, cursor: Option<usize>, answer: &Value) -> Result<(), String> {
        let Device { user, wish, cursors } = &self.devices[device];
        let since = cursor.map(|cursor| cursors[cursor].1);
        let checked = self.model.check(&user.id, since, wish, answer);
        checked.map_err(|error| {
            format!(
                "{} (device {device}) asked since step {since:?}: {error}",
                user.name
            )
        })
    }

    async fn sync(&mut self, device: usize, cursor: Option<usize>) {
        self.story.push(format!(
            "{}: device {device} syncs from {cursor:?}",
            self.model.now
        ));
        let synced = self.ask(device, cursor).await;
        if let Err(error) = self.check(device, cursor, &synced.0) {
            panic!("{}\n{error}\n{:#}", self.story.join("\n"), synced.0);
        }
        let now = self.model.now;
        self.devices[device].cursors.push((synced.next(), now));
    }

    /// Makes a request, which may be refused; whether it was not.
    async fn tell(&mut self, who: &User, what: &str, path: &str, body: Value, put: bool) -> bool {
        let reply = match put {
            true => who.put(path, body.clone()).await,
            false => who.post(path, body.clone()).await,
        };
        let done = reply.status == 200;
        if done {
            self.story
                .push(format!("{}: {} {what}: {path} {body}", self.model.now, who.name));
        }
        done
    }

    async fn send_event(&mut self, who: &User, room: &str, kind: &str, content: Value) {
        let path = format!("rooms/{}/send/{kind}/{}", encode(room), who.transaction());
        self.tell(who, "sends", &path, content, true).await;
    }

    async fn send(&mut self, who: &User, room: &str) {
        let mut content = json!({ "msgtype": "m.text", "body": format!("message {}", self.model.now) });
        if self.chance.below(4) == 0 {
            let whom = self.chance.below(self.people.len());
            content["m.mentions"] = json!({ "user_ids": [self.people[whom].id] });
        }
        self.send_event(who, room, "m.room.message", content).await;
    }

    /// A number of a message of a room, mostly of the last ones.
    fn some_message(&mut self, room: usize) -> Option<usize> {
        let events = self.model.rooms[room].events.iter().enumerate();
        let messages =
            events.filter(|(_, event)| event.kind() == "m.room.message" && event.redacted_at.is_none());
        let messages: Vec<usize> = messages.map(|(place, _)| place).collect();
        let back = self.chance.below(messages.len().clamp(1, 6));
        messages.iter().rev().nth(back).copied()
    }

    /// Answers in a thread, or edits.
    async fn thread(&mut self, who: &User, room: usize) {
        let Some(message) = self.some_message(room) else {
            return;
        };
        let event = &self.model.rooms[room].events[message];
        let root = match event.thread() {
            "main" => event.id(),
            root => root,
        };
        let mut content = json!({
            "msgtype": "m.text",
            "body": "in a thread",
            "m.relates_to": { "rel_type": "m.thread", "event_id": root },
        });
        if event.sender() == who.id && self.chance.below(2) == 0 {
            content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": event.id() });
            content["m.new_content"] = json!({ "msgtype": "m.text", "body": "edited" });
        }
        let room = self.model.rooms[room].id.clone();
        self.send_event(who, &room, "m.room.message", content).await;
    }

    async fn react(&mut self, who: &User, room: usize) {
        let Some(message) = self.some_message(room) else {
            return;
        };
        let room = &self.model.rooms[room];
        let event = room.events[message].id();
        let content =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "x" } });
        let id = room.id.clone();
        self.send_event(who, &id, "m.reaction", content).await;
    }

    async fn redact(&mut self, who: &User, room: usize) {
        let Some(message) = self.some_message(room) else {
            return;
        };
        let Room { id, events } = &self.model.rooms[room];
        let event = encode(events[message].id());
        let path = format!("rooms/{}/redact/{event}/{}", encode(id), who.transaction());
        if self.tell(who, "redacts", &path, json!({}), true).await {
            self.model.rooms[room].events[message].redacted_at = Some(self.model.now);
        }
    }

    /// Sets a receipt, or a marker of what is fully read.
    async fn read(&mut self, who: &User, room: usize) {
        let Room { id, events } = &self.model.rooms[room];
        let (id, count) = (id.clone(), events.len());
        let event = count - 1 - self.chance.below(count.min(6));
        let (event_id, thread) = (events[event].id().to_owned(), events[event].thread().to_owned());
        let path = format!("rooms/{}", encode(&id));
        let choice = self.chance.below(5);
        if choice == 0 {
            let body = json!({ "m.fully_read": event_id });
            if self
                .tell(who, "has read", &format!("{path}/read_markers"), body, false)
                .await
            {
                let content = json!({ "event_id": event_id });
                let marks = self
                    .model
                    .data
                    .iter()
                    .rfind(|data| data.user == who.id && data.room == id && data.kind == "m.fully_read");
                let before = marks.and_then(|data| {
                    let events = self.model.rooms[room].events.iter();
                    events
                        .clone()
                        .position(|event| data.content["event_id"] == event.id())
                });
                if before.is_none_or(|before| before < event) {
                    self.note_data(who, &id, "m.fully_read", content);
                }
            }
            return;
        }
        let kind = ["m.read", "m.read.private"][self.chance.below(2)];
        let thread = if choice < 3 { String::new() } else { thread };
        let body = match &*thread {
            "" => json!({}),
            thread => json!({ "thread_id": thread }),
        };
        let path = format!("{path}/receipt/{kind}/{}", encode(&event_id));
        if self.tell(who, "reads", &path, body, false).await {
            let mut receipts = self.model.receipts.iter();
            let is_older = |receipt: &Receipt| {
                let key = (&*receipt.user, &*receipt.room, &*receipt.kind, &*receipt.thread);
                key == (&*who.id, &*id, kind, &*thread) && receipt.event >= event
            };
            if !receipts.any(is_older) {
                let (at, user, kind) = (self.model.now, who.id.clone(), kind.to_owned());
                self.model.receipts.push(Receipt {
                    at,
                    user,
                    room: id,
                    kind,
                    thread,
                    event,
                });
            }
        }
    }

    fn note_data(&mut self, who: &User, room: &str, kind: &str, content: Value) {
        self.model.data.push(Data {
            at: self.model.now,
            user: who.id.clone(),
            room: room.to_owned(),
            kind: kind.to_owned(),
            content,
        });
    }

    async fn set_data(&mut self, who: &User, room: &str, kind: &str) {
        let kind = format!("{kind}.{}", self.chance.below(2));
        let content = json!({ "set": self.model.now });
        self.put_data(who, room, &kind, content).await;
    }

    async fn put_data(&mut self, who: &User, room: &str, kind: &str, content: Value) {
        let of_room = match room {
            "" => String::new(),
            room => format!("/rooms/{}", encode(room)),
        };
        let path = format!("user/{}{of_room}/account_data/{kind}", encode(&who.id));
        if self.tell(who, "keeps", &path, content.clone(), true).await {
            self.note_data(who, room, kind, content);
        }
    }

    async fn set_tag(&mut self, who: &User, room: &str) {
        let path = format!("user/{}/rooms/{}/tags/u.tag", encode(&who.id), encode(room));
        let tag = json!({ "order": 0.5 });
        if self.tell(who, "tags", &path, tag.clone(), true).await {
            self.note_data(who, room, "m.tag", json!({ "tags": { "u.tag": tag } }));
        }
    }

    /// Ignores one of the others, or nobody.
    async fn ignore(&mut self, who: &User) {
        let whom = self.chance.below(self.people.len() + 1);
        let whom = self.people.get(whom).filter(|whom| whom.id != who.id);
        let users: BTreeMap<_, _> = whom
            .map(|whom| (whom.id.clone(), json!({})))
            .into_iter()
            .collect();
        let content = json!({ "ignored_users": users });
        self.put_data(who, "", "m.ignored_user_list", content).await;
    }

    /// Reads what came into the rooms, as their owner sees it.
    async fn learn(&mut self) {
        let at = self.model.now;
        for room in &mut self.model.rooms {
            let path = format!("rooms/{}/messages?dir=b&limit=40", encode(&room.id));
            let page = self.owner.get(&path).await.ok();
            let newest = room.events.last().map(Event::id);
            let chunk = page["chunk"].as_array().unwrap();
            let new: Vec<Value> = chunk
                .iter()
                .take_while(|event| event["event_id"].as_str() != newest)
                .cloned()
                .collect();
            let new = new.into_iter().rev();
            room.events.extend(new.map(|json| Event {
                at,
                json,
                redacted_at: None,
            }));
        }
    }
}
