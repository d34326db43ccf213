//! A log of what happened, and plain reading of it in the words of the Matrix specification.
//!
//! Slow on purpose: everything is found by looking through the log from its beginning.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// When something happened, or what a cursor has seen: the number of a step.
pub(crate) type Step = usize;

/// A slot of a room's state.
pub(crate) type Slot = (String, String);

/// How a device asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// The filter, as the client gives it.
    pub(crate) filter: Value,
    /// Most events of a timeline.
    pub(crate) limit: usize,
    /// Whether only members who speak are wanted.
    pub(crate) lazy: bool,
    /// Whether unread counts are by thread.
    pub(crate) by_thread: bool,
    /// The only rooms that are wanted.
    pub(crate) rooms: Option<Vec<String>>,
}

/// An event of a room's timeline.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When it happened.
    pub(crate) at: Step,
    /// As a member of the room was shown it then.
    pub(crate) json: Value,
    /// When its content was taken away.
    pub(crate) redacted_at: Option<Step>,
}

/// A room.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Its id.
    pub(crate) id: String,
    /// Its timeline.
    pub(crate) events: Vec<Event>,
}

/// That somebody has read.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    /// When the user said so.
    pub(crate) at: Step,
    /// The user.
    pub(crate) user: String,
    /// The room.
    pub(crate) room: String,
    /// `m.read` or `m.read.private`.
    pub(crate) kind: String,
    /// `main`, a thread's root, or empty for everything.
    pub(crate) thread: String,
    /// The number of the event in its room's timeline.
    pub(crate) event: usize,
}

/// A piece of account data.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    /// When it was set.
    pub(crate) at: Step,
    /// Whose.
    pub(crate) user: String,
    /// The room, or empty for the whole account.
    pub(crate) room: String,
    /// The type.
    pub(crate) kind: String,
    /// The content.
    pub(crate) content: Value,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// The newest step.
    pub(crate) now: Step,
    /// All rooms.
    pub(crate) rooms: Vec<Room>,
    /// All receipts that moved forward.
    pub(crate) receipts: Vec<Receipt>,
    /// All account data ever set.
    pub(crate) data: Vec<Data>,
}

impl Event {
    pub(crate) fn id(&self) -> &str {
        self.json["event_id"].as_str().unwrap()
    }

    pub(crate) fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap()
    }

    pub(crate) fn sender(&self) -> &str {
        self.json["sender"].as_str().unwrap()
    }

    pub(crate) fn slot(&self) -> Option<Slot> {
        Some((
            self.kind().to_owned(),
            self.json["state_key"].as_str()?.to_owned(),
        ))
    }

    pub(crate) fn is_member(&self, user: &str) -> bool {
        self.kind() == "m.room.member" && self.json["state_key"] == user
    }

    pub(crate) fn membership(&self) -> &str {
        self.json["content"]["membership"].as_str().unwrap()
    }

    /// The root of its thread, or `main`.
    pub(crate) fn thread(&self) -> &str {
        let relation = &self.json["content"]["m.relates_to"];
        let root = relation["event_id"].as_str();
        root.filter(|_| relation["rel_type"] == "m.thread")
            .unwrap_or("main")
    }

    /// What the predefined push rules say to somebody else: nothing, a notification, a highlight.
    fn notifies(&self, user: &str) -> u64 {
        let content = &self.json["content"];
        let mentioned = content["m.mentions"]["user_ids"].as_array();
        let mentioned = mentioned.is_some_and(|users| users.iter().any(|id| id == user));
        if self.kind() != "m.room.message" {
            0
        } else if mentioned {
            2
        } else {
            u64::from(content["m.relates_to"]["rel_type"] != "m.replace")
        }
    }
}

impl Room {
    /// The user's membership as a step saw it.
    pub(crate) fn membership(&self, user: &str, at: Step) -> &str {
        let mut members = self
            .events
            .iter()
            .filter(|event| event.at <= at && event.is_member(user));
        members.next_back().map_or("", Event::membership)
    }

    /// The events that a step saw.
    pub(crate) fn until(&self, at: Step) -> usize {
        self.events.iter().take_while(|event| event.at <= at).count()
    }

    /// The state before an event, as numbers of events.
    pub(crate) fn state_before(&self, event: usize) -> BTreeMap<Slot, usize> {
        let before = self.events.iter().enumerate().take(event);
        before
            .filter_map(|(at, event)| Some((event.slot()?, at)))
            .collect()
    }

    /// Where the user joined who is joined at a step and was not away since.
    pub(crate) fn joined_at(&self, user: &str, at: Step) -> Option<usize> {
        let mut joined = None;
        for (place, event) in self.events.iter().enumerate().take(self.until(at)) {
            if event.is_member(user) {
                joined = (event.membership() == "join").then(|| joined.unwrap_or(place));
            }
        }
        joined
    }

    /// Whether a user may see an event ("Room history visibility"), who is a member now or was one up to `left`.
    pub(crate) fn may_see(&self, user: &str, place: usize) -> bool {
        let visibility = |before: usize| {
            let slot = ("m.room.history_visibility".to_owned(), String::new());
            let event = self.state_before(before).get(&slot).copied();
            let content = event.map(|event| &self.events[event].json["content"]["history_visibility"]);
            content.and_then(Value::as_str).unwrap_or("shared").to_owned()
        };
        let membership = |before: usize| {
            let mut members = self
                .events
                .iter()
                .take(before)
                .filter(|event| event.is_member(user));
            members.next_back().map_or("", Event::membership)
        };
        let around = [place, place + 1];
        let joins_later = || {
            self.events
                .iter()
                .skip(place)
                .any(|event| event.is_member(user) && event.membership() == "join")
        };
        let may = |visibility: &str, membership: &str| match visibility {
            "world_readable" => true,
            "shared" => membership == "join" || joins_later(),
            "invited" => ["join", "invite"].contains(&membership),
            _ => membership == "join",
        };
        around
            .iter()
            .any(|v| around.iter().any(|m| may(&visibility(*v), membership(*m))))
    }
}

impl Model {
    /// A room by its id.
    pub(crate) fn room(&self, id: &str) -> &Room {
        self.rooms.iter().find(|room| room.id == id).unwrap()
    }

    /// Whom a user ignored at a step.
    pub(crate) fn ignored(&self, user: &str, at: Step) -> BTreeSet<String> {
        let is_list = |data: &&Data| data.user == user && data.kind == "m.ignored_user_list" && data.at <= at;
        let list = self.data.iter().rfind(is_list);
        let users = list.and_then(|data| data.content["ignored_users"].as_object().cloned());
        users
            .unwrap_or_default()
            .into_iter()
            .map(|(user, _)| user)
            .collect()
    }

    /// The newest receipts of each user, kind and thread of a room that a user may see, of those that came after a step.
    pub(crate) fn receipts_for(
        &self,
        user: &str,
        room: &str,
        after: Option<Step>,
    ) -> BTreeSet<(String, String, String, String)> {
        let mut newest = BTreeMap::new();
        for receipt in self.receipts.iter().filter(|receipt| receipt.room == room) {
            newest.insert((&receipt.user, &receipt.kind, &receipt.thread), receipt);
        }
        let seen = newest
            .into_values()
            .filter(|receipt| after.is_none_or(|after| receipt.at > after));
        let seen = seen.filter(|receipt| receipt.kind == "m.read" || receipt.user == user);
        let event = |receipt: &Receipt| self.room(room).events[receipt.event].id().to_owned();
        seen.map(|receipt| {
            (
                event(receipt),
                receipt.kind.clone(),
                receipt.user.clone(),
                receipt.thread.clone(),
            )
        })
        .collect()
    }

    /// The newest of each type of a user's account data of a room, of those that came after a step.
    pub(crate) fn data_for(&self, user: &str, room: &str, after: Option<Step>) -> BTreeMap<String, Value> {
        let of_room = self
            .data
            .iter()
            .filter(|data| data.user == user && data.room == room);
        let newer = of_room.filter(|data| after.is_none_or(|after| data.at > after));
        newer
            .map(|data| (data.kind.clone(), data.content.clone()))
            .collect()
    }

    /// Unread notifications and highlights now, by thread (`main` for what is in none).
    pub(crate) fn unread(&self, user: &str, room: &Room) -> BTreeMap<String, (u64, u64)> {
        let joined = room.joined_at(user, self.now).unwrap_or(0);
        let mut counts = BTreeMap::new();
        let read = |place: usize, thread: &str| {
            let mut own = self
                .receipts
                .iter()
                .filter(|receipt| receipt.user == user && receipt.room == room.id);
            let mut later = room.events.iter().skip(place);
            // To send an event is to have read its thread up to there.
            let speaks =
                |event: &Event| event.sender() == user && !event.is_member(user) && event.thread() == thread;
            later.any(speaks)
                || own.any(|receipt| {
                    receipt.event >= place && (receipt.thread.is_empty() || receipt.thread == thread)
                })
        };
        for (place, event) in room.events.iter().enumerate().skip(joined + 1) {
            let notifies = event.notifies(user);
            let counts_not = event.sender() == user || event.redacted_at.is_some() || notifies == 0;
            // What an event notifies of is decided when it comes.
            let is_ignored = || self.ignored(user, event.at).contains(event.sender());
            if counts_not || read(place, event.thread()) || is_ignored() {
                continue;
            }
            let count: &mut (u64, u64) = counts.entry(event.thread().to_owned()).or_default();
            count.0 += 1;
            count.1 += u64::from(notifies == 2);
        }
        counts
    }
}
