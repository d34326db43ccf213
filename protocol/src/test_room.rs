//! Rooms for tests: branches of one history whose events are built, checked and kept.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::{
    auth::{self, Denied, StateSlot},
    event::{Draft, Event, Links, build},
    key::{KeyId, SecretKey, SigningKey},
    limits::DEFAULT_MAX_EVENT_BYTES,
    resolve::StateMap,
    version::RoomVersion,
};

pub(crate) const ALICE: &str = "@alice:a.example";
pub(crate) const BOB: &str = "@bob:b.example";
pub(crate) const CAROL: &str = "@carol:c.example";

/// The key that every server of a story signs with.
pub(crate) fn key() -> SigningKey {
    SigningKey {
        id: KeyId::new("1").unwrap(),
        secret: SecretKey::from_seed(&[1; 32]),
    }
}

/// A room with all events of all its branches.
pub(crate) struct Story {
    pub(crate) version: RoomVersion,
    pub(crate) events: BTreeMap<OwnedEventId, Arc<Event>>,
    room_id: Option<OwnedRoomId>,
    clock: u64,
}

/// One line of history: its state and its newest events.
#[derive(Clone, Default)]
pub(crate) struct Branch {
    pub(crate) state: StateMap,
    pub(crate) heads: Vec<OwnedEventId>,
    pub(crate) depth: u64,
}

impl Story {
    /// A room without any event.
    pub(crate) fn empty(version: RoomVersion) -> Self {
        let room_id = (!version.room_id_is_hash()).then(|| "!room:a.example".try_into().unwrap());
        Self {
            version,
            events: BTreeMap::new(),
            room_id,
            clock: 1_000,
        }
    }

    /// A public room that Alice made, who gave Bob power level 50.
    pub(crate) fn public_room(version: RoomVersion) -> (Self, Branch) {
        let mut story = Self::empty(version);
        let mut branch = Branch::default();
        let mut create = json!({"room_version": version.as_str()});
        if version.create_names_creator() {
            create["creator"] = ALICE.into();
        }
        let mut users = json!({ BOB: 50 });
        if !version.creators_are_privileged() {
            users[ALICE] = 100.into();
        }
        let create = story.state(&mut branch, ALICE, "m.room.create", "", create);
        story.room_id = Some(create.room_id.clone());
        story.state(
            &mut branch,
            ALICE,
            "m.room.member",
            ALICE,
            json!({"membership": "join"}),
        );
        story.state(
            &mut branch,
            ALICE,
            "m.room.power_levels",
            "",
            json!({ "users": users }),
        );
        story.state(
            &mut branch,
            ALICE,
            "m.room.join_rules",
            "",
            json!({"join_rule": "public"}),
        );
        for user in [BOB, CAROL] {
            story.state(
                &mut branch,
                user,
                "m.room.member",
                user,
                json!({"membership": "join"}),
            );
        }
        (story, branch)
    }

    pub(crate) fn fetch(&self, id: &EventId) -> Option<Arc<Event>> {
        self.events.get(id).cloned()
    }

    /// The event in a slot of a branch.
    pub(crate) fn at(&self, state: &StateMap, event_type: &str, state_key: &str) -> Option<Arc<Event>> {
        state
            .get(&StateSlot::new(event_type, state_key))
            .and_then(|id| self.fetch(id))
    }

    /// Builds an event on a branch without asking whether it is allowed.
    pub(crate) fn draft(
        &mut self,
        branch: &Branch,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Event {
        self.clock += 1;
        let sender: OwnedUserId = sender.try_into().unwrap();
        let content = crate::Content::try_from(content).unwrap();
        let slots = auth::auth_slots(event_type, &sender, state_key, &content, self.version).unwrap();
        let auth_events = slots
            .iter()
            .filter_map(|slot| branch.state.get(slot).cloned())
            .collect();
        let links = Links {
            prev_events: branch.heads.clone(),
            auth_events,
            depth: branch.depth + 1,
        };
        let draft = Draft {
            room_id: self.room_id.clone(),
            event_type: event_type.into(),
            state_key: state_key.map(Into::into),
            content,
            redacts: None,
            origin_server_ts: self.clock,
            sender: sender.clone(),
        };
        build(
            draft,
            links,
            self.version,
            DEFAULT_MAX_EVENT_BYTES,
            sender.server_name(),
            &key(),
        )
        .unwrap()
    }

    /// Sends an event on a branch if the rules allow it. Every slot that the rules read must be one of
    /// those that are said to be needed.
    pub(crate) fn send(
        &mut self,
        branch: &mut Branch,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<Arc<Event>, Denied> {
        let event = self.draft(branch, sender, event_type, state_key, content);
        let needed =
            auth::slots_needed(event_type, &event.sender, state_key, &event.content, self.version).unwrap();
        auth::check_independent(&event, self.version, |id| self.fetch(id))?;
        auth::check(&event, self.version, |slot| {
            assert!(
                needed.contains(slot),
                "{slot} is read for {event_type} but not among the needed slots"
            );
            branch.state.get(slot).and_then(|id| self.fetch(id))
        })?;
        let event = Arc::new(event);
        self.events.insert(event.id.clone(), event.clone());
        if let Some(slot) = StateSlot::of(&event) {
            branch.state.insert(slot, event.id.clone());
        }
        branch.heads = vec![event.id.clone()];
        branch.depth = event.depth;
        Ok(event)
    }

    /// Sends a state event that the rules must allow.
    pub(crate) fn state(
        &mut self,
        branch: &mut Branch,
        sender: &str,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> Arc<Event> {
        self.send(branch, sender, event_type, Some(state_key), content)
            .unwrap()
    }
}
