//! Clients of several nodes, who say numbered things and listen whatever happens to the nodes, and the proof that all of
//! them heard everything exactly once and in one order.
//!
//! Over 500 lines, because what a client does, what it notes and what is checked of it afterwards only make sense together.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use maru_tests::user::encode;
use maru_tests::websocket::Shown;
use maru_tests::{Api, Socket, Synced, TestProcess, User};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Clients of each node.
const CLIENTS_OF_EACH: usize = 10;

/// Of so many clients, one listens over a WebSocket.
const SOCKET_EVERY: usize = 4;

/// How often each says something, when it is answered.
const PACE: Duration = Duration::from_millis(700);

/// How long a client waits for an answer, or a frame, beyond the time that it has asked the node to wait, before it goes to
/// another node: less than a node may be held up, so that some is asked again of another while the first is still at it.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The pause of a client whom a node has refused.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a sync waits for news.
const POLL: Duration = Duration::from_secs(1);

/// Time within which everything must have come to an end, also on a busy machine.
const END: Duration = Duration::from_secs(60);

/// Where the nodes are.
struct Addresses {
    nodes: Vec<Mutex<Address>>,
    /// Rises when everybody is to use the own node again.
    round: AtomicUsize,
}

#[derive(Clone)]
struct Address {
    api: Api,
    base: String,
}

impl Address {
    fn of(node: &TestProcess) -> Self {
        Self {
            api: node.api().clone(),
            base: node.base().to_owned(),
        }
    }
}

/// Which node a client uses now.
struct Place {
    addresses: Arc<Addresses>,
    home: usize,
    node: usize,
    round: usize,
}

impl Place {
    fn new(addresses: &Arc<Addresses>, home: usize) -> Self {
        Self {
            addresses: Arc::clone(addresses),
            home,
            node: home,
            round: 0,
        }
    }

    fn address(&mut self) -> Address {
        let round = self.addresses.round.load(Ordering::Relaxed);
        if round != self.round {
            (self.node, self.round) = (self.home, round);
        }
        self.addresses.nodes[self.node].lock().unwrap().clone()
    }

    /// Goes to the next node, after one that did not answer.
    async fn leave(&mut self) {
        self.node = (self.node + 1) % self.addresses.nodes.len();
        sleep(PAUSE).await;
    }

    /// Makes a request on one node after another until one answers it.
    async fn ask(&mut self, method: Method, path: &str, token: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string());
        loop {
            let asking = self.try_ask(method.clone(), path, token, body.clone(), PATIENCE);
            match asking.await {
                Some(answer) => return answer,
                None => self.leave().await,
            }
        }
    }

    /// Makes a request on the present node; `None` when it does not answer, or cannot now.
    async fn try_ask(
        &mut self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Option<Value> {
        let api = self.address().api;
        let asking = api.try_request(method, path, Some(token), body.map(Into::into));
        let reply = timeout(patience, asking).await.ok()?.ok()?;
        // Nothing that fails may log a client out, or make it begin anew.
        let is_known = reply.status == 200 || reply.status.is_server_error();
        assert!(is_known, "{path}: {} {}", reply.status, reply.json);
        (reply.status == 200).then_some(reply.json)
    }
}

/// How it goes with a client.
#[derive(Clone, Copy)]
pub(super) struct Life {
    /// When the newest of what it heard was said.
    heard: Instant,
    /// When its last message was acknowledged.
    acknowledged: Instant,
    /// When a sync was last answered.
    answered: Instant,
    /// The longest time from a message's first try to its acknowledgement.
    pub(super) longest_send: Duration,
    /// The longest time between two answers of its sync.
    pub(super) longest_silence: Duration,
}

/// What was said: by the text, which is unique, the room and when; once it is acknowledged, the event.
#[derive(Default)]
struct Said {
    begun: HashMap<String, Instant>,
    acknowledged: Vec<(String, String, String)>,
    /// How long each took to each listener.
    delays: Vec<Duration>,
}

/// What all of them share.
struct Talk {
    addresses: Arc<Addresses>,
    said: Mutex<Said>,
    is_over: watch::Sender<bool>,
    /// How many messages there are in each room, once no more come.
    expected: watch::Sender<Option<HashMap<String, usize>>>,
}

#[derive(Clone)]
struct Client {
    user: User,
    home: usize,
    /// The room of all, and one with a client of each node.
    rooms: [String; 2],
    life: watch::Sender<Life>,
    talk: Arc<Talk>,
}

/// All of them, talking.
pub(super) struct Clients {
    talk: Arc<Talk>,
    clients: Vec<Client>,
    speaking: Vec<JoinHandle<()>>,
    listening: Vec<JoinHandle<HashMap<String, Vec<Event>>>>,
}

/// An event's id and text.
type Event = (String, String);

impl Clients {
    /// Registers them, each on the node that it belongs to, makes their rooms, and has them talk.
    pub(super) async fn start(nodes: &[TestProcess]) -> Self {
        let addresses = Arc::new(Addresses {
            nodes: nodes.iter().map(|node| Mutex::new(Address::of(node))).collect(),
            round: AtomicUsize::new(0),
        });
        let talk = Arc::new(Talk {
            addresses,
            said: Mutex::default(),
            is_over: watch::Sender::new(false),
            expected: watch::Sender::new(None),
        });
        let names = (0..nodes.len() * CLIENTS_OF_EACH).map(|n| (n % nodes.len(), format!("user{n}")));
        let users = names.map(|(home, name)| async move { nodes[home].user(&name).await });
        let users = join_all(users).await;
        let all = room_of(&users.iter().collect::<Vec<_>>()).await;
        let mut clients = Vec::new();
        for group in users.chunks(nodes.len()) {
            let few = room_of(&group.iter().collect::<Vec<_>>()).await;
            for (home, user) in group.iter().enumerate() {
                let now = Instant::now();
                let life = Life {
                    heard: now,
                    acknowledged: now,
                    answered: now,
                    longest_send: Duration::ZERO,
                    longest_silence: Duration::ZERO,
                };
                clients.push(Client {
                    user: user.clone(),
                    home,
                    rooms: [all.clone(), few.clone()],
                    life: watch::Sender::new(life),
                    talk: Arc::clone(&talk),
                });
            }
        }
        let cursors = join_all(clients.iter().map(|client| client.knows_its_rooms())).await;
        let (mut speaking, mut listening) = (Vec::new(), Vec::new());
        for (number, (client, since)) in clients.iter().zip(cursors).enumerate() {
            let has_socket = number % SOCKET_EVERY == 0;
            listening.push(tokio::spawn(client.clone().listen(since, has_socket)));
            let first = PACE * u32::try_from(number).unwrap() / u32::try_from(clients.len()).unwrap();
            speaking.push(tokio::spawn(client.clone().speak(Instant::now() + first)));
        }
        Self {
            talk,
            clients,
            speaking,
            listening,
        }
    }

    /// A node was started again and is elsewhere now.
    pub(super) fn moved(&self, number: usize, node: &TestProcess) {
        *self.talk.addresses.nodes[number].lock().unwrap() = Address::of(node);
    }

    /// Has everybody use the own node again, and waits until that works. The times of waiting begin anew. How long everybody
    /// takes to say and hear something when nothing is wrong: what this machine is slow by.
    pub(super) async fn go_home(&self) -> Duration {
        self.talk.addresses.round.fetch_add(1, Ordering::Relaxed);
        self.back_after(Instant::now()).await;
        let calm = self.back_after(Instant::now()).await;
        for client in &self.clients {
            client.life.send_modify(|life| {
                (life.longest_send, life.longest_silence) = (Duration::ZERO, Duration::ZERO);
            });
        }
        calm
    }

    /// Waits until everybody has heard something that was said after a moment, and has said something; how long after it.
    pub(super) async fn back_after(&self, moment: Instant) -> Duration {
        let back = self.clients.iter().map(|client| async move {
            let mut life = client.life.subscribe();
            let is_back = |life: &Life| life.heard > moment && life.acknowledged > moment;
            let waited = timeout(END, life.wait_for(is_back)).await;
            assert!(
                matches!(waited, Ok(Ok(_))),
                "{} of node {} is away for ever",
                client.user.id,
                client.home
            );
            moment.elapsed()
        });
        join_all(back).await.into_iter().max().unwrap()
    }

    /// How it goes with the clients of one node and with all others.
    pub(super) fn lives(&self, node: usize) -> [Vec<Life>; 2] {
        let lives = self
            .clients
            .iter()
            .map(|client| (client.home, *client.life.borrow()));
        let (of_it, others): (Vec<_>, Vec<_>) = lives.partition(|(home, _)| *home == node);
        [of_it, others].map(|lives| lives.into_iter().map(|(_, life)| life).collect())
    }

    /// Ends the talk, and checks that every acknowledged message, and no other, stands exactly once and in one order in the
    /// history of each room on every node and in what every client has heard.
    pub(super) async fn check(self) {
        self.talk.is_over.send_replace(true);
        for speaking in self.speaking {
            speaking.await.unwrap();
        }
        let mut said: HashMap<String, BTreeMap<String, String>> = HashMap::new();
        let mut count = 0;
        for (room, id, text) in std::mem::take(&mut self.talk.said.lock().unwrap().acknowledged) {
            count += 1;
            let double = said.entry(room).or_default().insert(id, text.clone());
            assert_eq!(double, None, "`{text}` became the event of another message");
        }
        let counts = said.iter().map(|(room, events)| (room.clone(), events.len()));
        self.talk.expected.send_replace(Some(counts.collect()));
        let heard = join_all(self.listening).await;
        let mut histories: HashMap<&str, Vec<Event>> = HashMap::new();
        for (client, heard) in self.clients.iter().zip(heard) {
            let heard = heard.unwrap();
            for room in &client.rooms {
                // The first who asks does so on every node, the others compare with that.
                if !histories.contains_key(room.as_str()) {
                    histories.insert(room, client.history_everywhere(room).await);
                    check(&histories[room.as_str()], &said[room], room);
                }
                let place = format!("{} in {room}", client.user.id);
                same(&heard[room], &histories[room.as_str()], &place);
            }
        }
        let mut delays = std::mem::take(&mut self.talk.said.lock().unwrap().delays);
        delays.sort_unstable();
        let at = |share: usize| delays[delays.len() * share / 1000];
        println!(
            "{count} messages, heard {} times: half within {:?}, 99 % within {:?}, the last after {:?}",
            delays.len(),
            at(500),
            at(990),
            at(999)
        );
    }
}

/// A room in which all of these are. The first makes it.
async fn room_of(users: &[&User]) -> String {
    let room = users[0].create_room(json!({ "preset": "public_chat" })).await;
    join_all(users[1..].iter().map(|user| user.join(&room))).await;
    room
}

impl Client {
    /// Where a sync goes on from that knows both rooms.
    async fn knows_its_rooms(&self) -> String {
        let knows = |synced: &Synced| self.rooms.iter().all(|room| synced.room(room).is_object());
        let known = |synced: &Synced| knows(synced).then(|| synced.next());
        self.user.until("the rooms", known).await
    }

    /// Says one thing after the other, each until it is acknowledged, mostly in the room of all.
    async fn speak(self, first: Instant) {
        let mut place = Place::new(&self.talk.addresses, self.home);
        let mut pace = interval_at(first, PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_over = self.talk.is_over.subscribe();
        for number in 0.. {
            tokio::select! {
                _ = pace.tick() => {}
                _ = is_over.wait_for(|is_over| *is_over) => return,
            }
            let room = &self.rooms[usize::from(number % 3 == 2)];
            let text = format!("{} {number}", self.user.name);
            let begun = Instant::now();
            self.talk.said.lock().unwrap().begun.insert(text.clone(), begun);
            let path = format!("rooms/{}/send/m.room.message/{}", encode(room), encode(&text));
            let content = json!({ "msgtype": "m.text", "body": text });
            let answer = place
                .ask(Method::PUT, &path, &self.user.token, Some(content))
                .await;
            let id = answer["event_id"].as_str().unwrap().to_owned();
            self.talk
                .said
                .lock()
                .unwrap()
                .acknowledged
                .push((room.clone(), id, text));
            self.life.send_modify(|life| {
                life.acknowledged = Instant::now();
                life.longest_send = life.longest_send.max(begun.elapsed());
            });
        }
    }

    /// Listens until all that was said has come; what came, by room.
    async fn listen(self, since: String, has_socket: bool) -> HashMap<String, Vec<Event>> {
        let mut listener = Listener {
            place: Place::new(&self.talk.addresses, self.home),
            socket: None,
            heard: HashMap::from(self.rooms.clone().map(|room| (room, Vec::new()))),
            since,
            client: self,
        };
        let expected = listener.client.talk.expected.subscribe();
        let mut deadline = None;
        while !listener.has_all(expected.borrow().as_ref()) {
            if expected.borrow().is_some() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + END);
                // What is missing is told by who compares.
                if Instant::now() > deadline {
                    return listener.heard;
                }
            }
            match has_socket {
                true => listener.take_frame().await,
                false => listener.poll(POLL).await,
            }
        }
        // What comes now comes twice.
        listener.poll(Duration::ZERO).await;
        listener.heard
    }

    /// The messages of a room as every node tells them.
    async fn history_everywhere(&self, room: &str) -> Vec<Event> {
        let apis = self.talk.addresses.nodes.iter();
        let apis: Vec<Api> = apis.map(|node| node.lock().unwrap().api.clone()).collect();
        let mut first: Option<Vec<Event>> = None;
        for api in apis {
            let history = messages(&self.user.on(&api).history(room).await);
            match &first {
                Some(first) => same(&history, first, &format!("the history of {room} on another node")),
                None => first = Some(history),
            }
        }
        first.unwrap()
    }
}

/// What a client has heard, and where it goes on.
struct Listener {
    client: Client,
    place: Place,
    /// A connection, and the round in which it was made.
    socket: Option<(Socket, usize)>,
    since: String,
    heard: HashMap<String, Vec<Event>>,
}

impl Listener {
    fn has_all(&self, expected: Option<&HashMap<String, usize>>) -> bool {
        expected.is_some_and(|expected| {
            let rooms = self.client.rooms.iter();
            rooms
                .clone()
                .all(|room| self.heard[room].len() >= expected.get(room).copied().unwrap_or_default())
        })
    }

    /// One sync by long-poll, on this node or, next time, another.
    async fn poll(&mut self, wait: Duration) {
        let path = format!("sync?timeout={}&since={}", wait.as_millis(), encode(&self.since));
        let token = &self.client.user.token;
        let asking = self
            .place
            .try_ask(Method::GET, &path, token, None, wait + PATIENCE);
        match asking.await {
            Some(answer) => self.hear(&Synced(answer)).await,
            None => self.place.leave().await,
        }
    }

    /// One frame of the connection, which is made, here or elsewhere, where there is none.
    async fn take_frame(&mut self) {
        if self.try_frame().await.is_err() {
            self.socket = None;
            self.place.leave().await;
        }
    }

    async fn try_frame(&mut self) -> Result<(), String> {
        let base = self.place.address().base;
        let held = self.socket.take().filter(|(_, round)| *round == self.place.round);
        let mut socket = match held {
            Some((socket, _)) => socket,
            None => {
                let query = format!("since={}", encode(&self.since));
                let connecting = Socket::connect(&base, &self.client.user.token, Shown::Header, &query);
                let connected = timeout(PATIENCE, connecting).await;
                let connected = connected.map_err(|error| error.to_string())?;
                connected.map_err(|error| error.to_string())?
            }
        };
        let synced = socket.try_sync(POLL + PATIENCE).await?;
        self.hear(&synced).await;
        let ack = json!({ "type": "ack", "next_batch": synced.next() });
        let acked = socket.say(Message::text(ack.to_string())).await;
        acked.map_err(|error| error.to_string())?;
        self.socket = Some((socket, self.place.round));
        Ok(())
    }

    /// Takes what a sync brings, and what it leaves out.
    async fn hear(&mut self, synced: &Synced) {
        let now = Instant::now();
        let mut newest = None;
        for room in self.client.rooms.clone() {
            let mut events = self.left_out(synced, &room).await;
            events.extend(synced.events(&room));
            let events = messages(&events);
            {
                let mut said = self.client.talk.said.lock().unwrap();
                let begun: Vec<_> = events.iter().map(|(_, text)| said.begun[text]).collect();
                newest = newest.max(begun.iter().max().copied());
                said.delays.extend(begun.iter().map(|begun| now - *begun));
            }
            self.heard.get_mut(&room).unwrap().extend(events);
        }
        self.since = synced.next();
        self.client.life.send_modify(|life| {
            life.heard = newest.map_or(life.heard, |newest| newest.max(life.heard));
            life.longest_silence = life.longest_silence.max(now - life.answered);
            life.answered = now;
        });
    }

    /// The events between the last sync and what a limited one shows of a room, oldest first.
    async fn left_out(&mut self, synced: &Synced, room: &str) -> Vec<Value> {
        let timeline = &synced.room(room)["timeline"];
        let mut newest_first = Vec::new();
        let mut from = timeline["prev_batch"]
            .as_str()
            .filter(|_| timeline["limited"] == true)
            .map(str::to_owned);
        while let Some(token) = from {
            let path = format!(
                "rooms/{}/messages?dir=b&limit=100&from={}&to={}",
                encode(room),
                encode(&token),
                encode(&self.since)
            );
            let page = self.place.ask(Method::GET, &path, &self.client.user.token, None);
            let page = page.await;
            newest_first.extend(page["chunk"].as_array().unwrap().iter().cloned());
            from = page["end"].as_str().map(str::to_owned);
        }
        newest_first.reverse();
        newest_first
    }
}

/// The messages among some events.
fn messages(events: &[Value]) -> Vec<Event> {
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&event["event_id"]), text(&event["content"]["body"]))
        })
        .collect()
}

/// Checks that a history holds what was said, once each, and each speaker's words in their order.
fn check(history: &[Event], said: &BTreeMap<String, String>, room: &str) {
    let once: BTreeMap<_, _> = history.iter().cloned().collect();
    assert_eq!(once.len(), history.len(), "{room} holds an event twice");
    let lacking: Vec<_> = said
        .iter()
        .filter(|(id, _)| !once.contains_key(*id))
        .take(5)
        .collect();
    assert!(lacking.is_empty(), "{room} lacks {lacking:?}");
    let more: Vec<_> = once
        .iter()
        .filter(|(id, _)| !said.contains_key(*id))
        .take(5)
        .collect();
    assert!(more.is_empty(), "{room} holds what nobody was told of: {more:?}");
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (_, text) in history {
        let (name, number) = text.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        let before = last.insert(name, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{room} has `{text}` out of order"
        );
    }
}

/// Compares two orders, and says where they part.
fn same(found: &[Event], expected: &[Event], place: &str) {
    let parted = found.iter().zip(expected).position(|(one, other)| one != other);
    if let Some(at) = parted {
        let near = |events: &[Event]| events[at..(at + 5).min(events.len())].to_vec();
        panic!(
            "{place}: from {at} on, {:?} instead of {:?}",
            near(found),
            near(expected)
        );
    }
    assert_eq!(
        found.len(),
        expected.len(),
        "{place}: heard too little or too much"
    );
}
