//! Whether a device's answer is what the specification says: the sections of its rooms, timelines, states, counts,
//! receipts and account data.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::model::{Model, Room, Slot, Step, Wish};

impl Model {
    /// Checks what a device was answered that has seen everything up to `since`.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub(crate) fn check(
        &self,
        user: &str,
        since: Option<Step>,
        wish: &Wish,
        answer: &Value,
    ) -> Result<(), String> {
        let mut data = kinds_and_contents(&answer["account_data"]["events"]);
        if since.is_none() {
            same("push rules", &data.remove("m.push_rules").is_some(), &true)?;
        }
        same("account data", &data, &self.data_for(user, "", since))?;
        for room in &self.rooms {
            let wanted = wish.rooms.as_ref().is_none_or(|rooms| rooms.contains(&room.id));
            let reading = Reading {
                model: self,
                room,
                user,
                since,
                wish,
            };
            let sections: Vec<&str> = ["join", "invite", "leave"]
                .into_iter()
                .filter(|section| !answer["rooms"][section][&room.id].is_null())
                .collect();
            let expected = if wanted { reading.sections() } else { vec![vec![]] };
            if !expected.contains(&sections) {
                return Err(format!(
                    "{} stands in {sections:?} instead of {expected:?}",
                    room.id
                ));
            }
            let checked = match sections[..] {
                ["join"] => reading.check_joined(&answer["rooms"]["join"][&room.id]),
                ["leave"] => reading.check_left(&answer["rooms"]["leave"][&room.id]),
                _ => Ok(()),
            };
            checked.map_err(|error| format!("{}: {error}", room.id))?;
        }
        Ok(())
    }
}

/// A room as one device reads it.
struct Reading<'m> {
    model: &'m Model,
    room: &'m Room,
    user: &'m str,
    since: Option<Step>,
    wish: &'m Wish,
}

impl Reading<'_> {
    /// Whether the device knows the room: the user was joined when it last looked and has not been away.
    fn is_known(&self) -> bool {
        let joined = self.room.joined_at(self.user, self.model.now);
        let since = self.since.map(|since| self.room.until(since));
        since.is_some_and(|since| joined.is_some_and(|joined| joined < since))
    }

    /// In which sections of the answer the room may stand.
    fn sections(&self) -> Vec<Vec<&'static str>> {
        let now = self.room.membership(self.user, self.model.now);
        let since = self.since.unwrap_or(0);
        let after = self.room.until(since);
        let own = self.room.events[after..]
            .iter()
            .filter(|event| event.is_member(self.user));
        let was_in = ["join", "invite"].contains(&self.room.membership(self.user, since))
            || own
                .clone()
                .any(|event| ["join", "invite"].contains(&event.membership()));
        let changed = own.clone().next().is_some();
        let by_ignored = own.clone().next_back().is_some_and(|event| {
            self.model
                .ignored(self.user, self.model.now)
                .contains(event.sender())
        });
        match now {
            "join" if !self.is_known() || self.has_news() => vec![vec!["join"]],
            // That the last events are all by people who are ignored may, or may not, be told.
            "join" if self.room.events.len() > after => vec![vec!["join"], vec![]],
            "invite" if by_ignored => vec![vec!["invite"], vec![]],
            "invite" if self.since.is_none() || changed => vec![vec!["invite"]],
            "leave" | "ban" if self.since.is_some() && changed => match was_in {
                true => vec![vec!["leave"]],
                false => vec![vec!["leave"], vec![]],
            },
            _ => vec![vec![]],
        }
    }

    fn has_news(&self) -> bool {
        let after = self.since;
        let (user, room) = (self.user, &self.room.id);
        !self.new_events().is_empty()
            || !self.model.receipts_for(user, room, after).is_empty()
            || !self.model.data_for(user, room, after).is_empty()
    }

    /// The events that the device is to be told, of which a limited timeline has the last. Where the device knows nothing
    /// of the room, they begin after the last one that the user may not see.
    fn new_events(&self) -> Vec<usize> {
        let all = 0..self.room.events.len();
        let first = match self.is_known() {
            true => self.room.until(self.since.unwrap_or(0)),
            false => all
                .clone()
                .rfind(|place| !self.room.may_see(self.user, *place))
                .map_or(0, |hidden| hidden + 1),
        };
        let ignored = self.model.ignored(self.user, self.model.now);
        let is_shown = |place: &usize| {
            let event = &self.room.events[*place];
            event.slot().is_some() || !ignored.contains(event.sender())
        };
        all.skip(first).filter(is_shown).collect()
    }

    /// The numbers of events of an answer, each as it is to be shown now.
    fn places(&self, events: &Value) -> Result<Vec<usize>, String> {
        let mut places = Vec::new();
        for shown in events.as_array().into_iter().flatten() {
            let id = &shown["event_id"];
            let place = self.room.events.iter().position(|event| event.id() == id);
            let place = place.ok_or_else(|| format!("nobody knows of {shown}"))?;
            let event = &self.room.events[place];
            let content = match event.redacted_at {
                Some(_) => json!({}),
                None => event.json["content"].clone(),
            };
            same("content", &shown["content"], &content)?;
            same("sender", &shown["sender"], &event.json["sender"])?;
            places.push(place);
        }
        Ok(places)
    }

    fn check_joined(&self, shown: &Value) -> Result<(), String> {
        let timeline = self.places(&shown["timeline"]["events"])?;
        let new = self.new_events();
        let limited = shown["timeline"]["limited"] == true;
        if !new.ends_with(&timeline) || timeline.len() > self.wish.limit {
            return Err(format!("the timeline is {timeline:?} of {new:?}"));
        }
        if timeline.len() < new.len() && !limited || timeline.len() < new.len().min(self.wish.limit) {
            return Err(format!(
                "the timeline is only {timeline:?} of {new:?}, limited: {limited}"
            ));
        }
        self.check_state(shown, &timeline)?;
        self.check_unread(shown, !new.is_empty())?;
        let known_since = self.since.filter(|_| self.is_known());
        let (user, room) = (self.user, &self.room.id);
        let receipts = self.model.receipts_for(user, room, known_since);
        same("receipts", &receipts_in(&shown["ephemeral"]["events"]), &receipts)?;
        let data = self.model.data_for(user, room, known_since);
        same(
            "account data",
            &kinds_and_contents(&shown["account_data"]["events"]),
            &data,
        )
    }

    /// The state before the timeline, as far as the device lacks it.
    fn check_state(&self, shown: &Value, timeline: &[usize]) -> Result<(), String> {
        let start = timeline.first().copied().unwrap_or(self.room.events.len());
        let before = self.room.state_before(start);
        let given = self.places(&shown["state"]["events"])?;
        for place in &given {
            let slot = self.room.events[*place]
                .slot()
                .ok_or("an event in the state that is none")?;
            if before.get(&slot) != Some(place) {
                return Err(format!(
                    "{slot:?} is {place} in the state instead of {:?} before {start}",
                    before.get(&slot)
                ));
            }
        }
        let mut known = match self.is_known() {
            true => self.room.state_before(self.room.until(self.since.unwrap_or(0))),
            false => BTreeMap::new(),
        };
        let told = given.iter().chain(timeline);
        known.extend(told.filter_map(|place| Some((self.room.events[*place].slot()?, *place))));
        let mut now = self.room.state_before(self.room.events.len());
        if self.wish.lazy {
            // Members who do not speak may be left out; those who speak may not where the device begins anew.
            let anew = !self.is_known() || shown["timeline"]["limited"] == true;
            let speaks = |slot: &Slot| {
                anew && (slot.1 == self.user
                    || timeline
                        .iter()
                        .any(|place| self.room.events[*place].sender() == slot.1))
            };
            let counts = |slot: &Slot| slot.0 != "m.room.member" || speaks(slot);
            known.retain(|slot, _| counts(slot));
            now.retain(|slot, _| counts(slot));
        }
        same("state", &known, &now)
    }

    fn check_unread(&self, shown: &Value, news: bool) -> Result<(), String> {
        let unread = self.model.unread(self.user, self.room);
        let read_own = self.model.receipts.iter().any(|receipt| {
            receipt.user == self.user
                && receipt.room == self.room.id
                && self.since.is_none_or(|since| receipt.at > since)
        });
        let told = &shown["unread_notifications"];
        if told.is_null() {
            return if news || read_own {
                Err("unread counts are not told".to_owned())
            } else {
                Ok(())
            };
        }
        let count = |(notifications, highlights): (u64, u64)| json!({ "notification_count": notifications, "highlight_count": highlights });
        let sum = |all: (u64, u64), more: &(u64, u64)| (all.0 + more.0, all.1 + more.1);
        let main = match self.wish.by_thread {
            true => unread.get("main").copied().unwrap_or_default(),
            false => unread.values().fold((0, 0), sum),
        };
        same("unread", told, &count(main))?;
        if self.wish.by_thread {
            let threads = unread.iter().filter(|(thread, _)| *thread != "main");
            let threads: serde_json::Map<_, _> =
                threads.map(|(thread, of)| (thread.clone(), count(*of))).collect();
            let shown = shown["unread_thread_notifications"].as_object();
            same("unread of threads", &shown.cloned().unwrap_or_default(), &threads)?;
        }
        Ok(())
    }

    /// Of a room that was left: events up to the leave, in order, that the user may see.
    fn check_left(&self, shown: &Value) -> Result<(), String> {
        let timeline = self.places(&shown["timeline"]["events"])?;
        let last = self
            .room
            .events
            .iter()
            .rposition(|event| event.is_member(self.user));
        let ordered = timeline.is_sorted_by(|one, other| one < other);
        let seen = timeline
            .iter()
            .all(|place| self.room.may_see(self.user, *place) || Some(*place) == last);
        if timeline.last().copied() != last || !ordered || !seen || timeline.len() > self.wish.limit {
            return Err(format!("the timeline of a room left at {last:?} is {timeline:?}"));
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?} instead of {expected:?}")),
    }
}

fn kinds_and_contents(events: &Value) -> BTreeMap<String, Value> {
    let events = events.as_array().into_iter().flatten();
    events
        .map(|event| {
            (
                event["type"].as_str().unwrap().to_owned(),
                event["content"].clone(),
            )
        })
        .collect()
}

/// The receipts of an answer: event, kind, user, thread.
fn receipts_in(ephemeral: &Value) -> BTreeSet<(String, String, String, String)> {
    let mut receipts = BTreeSet::new();
    let events = ephemeral.as_array().into_iter().flatten();
    for content in events
        .filter(|event| event["type"] == "m.receipt")
        .map(|event| &event["content"])
    {
        for (event, kinds) in content.as_object().unwrap() {
            for (kind, users) in kinds.as_object().unwrap() {
                for (user, data) in users.as_object().unwrap() {
                    let thread = data["thread_id"].as_str().unwrap_or("");
                    receipts.insert((event.clone(), kind.clone(), user.clone(), thread.to_owned()));
                }
            }
        }
    }
    receipts
}
