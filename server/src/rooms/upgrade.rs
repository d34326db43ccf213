//! Upgrade of a room: its replacement by one of another version (client-server API, "Room Upgrades").

pub(super) mod power_levels;
pub(super) mod settings_carry_over;

use std::collections::BTreeSet;
use std::sync::Arc;

use maru_protocol::auth::PowerLevels;
use maru_protocol::canonical::Content;
use maru_protocol::version::RoomVersion;
use maru_protocol::visibility::Membership;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use super::Room;
use super::create::initial_state;
use super::create::{MOST_AT_ONCE, NewRoomRequest, Plan, Preset, StateDraft};
use super::membership::member_content;
use crate::refusal::Refusal;
use crate::rooms::{Appender, Directory, RoomCreation, RoomRepository, Sender, SettingsCarryOver};
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;
use power_levels::{Levels, carried_over, silenced};

/// State that moves to the replacement as it is, all with the empty state key.
const CARRIED_OVER: [&str; 9] = [
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.canonical_alias",
];

/// Keys of the create event that belong to one room alone.
const NOT_CARRIED_OVER: [&str; 4] = ["creator", "room_version", "predecessor", "additional_creators"];

/// Replacement of rooms by ones of another version.
#[derive(Debug)]
pub struct RoomUpgrade {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) appender: Arc<Appender>,
    pub(in crate::rooms) creation: Arc<RoomCreation>,
    pub(in crate::rooms) directory: Arc<Directory>,
    pub(in crate::rooms) settings_carry_over: Arc<SettingsCarryOver>,
}

impl RoomUpgrade {
    /// Replaces a room: makes the new one with the old one's settings, points from the old to the new, moves names and
    /// directory entry, and silences the old room. Who comes into the new one keeps tags and the like ([`SettingsCarryOver::carry_over`]).
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for those who may not end the room, or what making the new one met.
    pub async fn upgrade(
        &self,
        old: &Arc<Room>,
        user_id: &UserId,
        version: RoomVersion,
        additional_creators: Vec<OwnedUserId>,
    ) -> Result<Arc<Room>, Refusal> {
        let levels = self.repository.power_levels(old).await?;
        if !old.is_joined(user_id) || !levels.may_send(user_id, "m.room.tombstone", true) {
            return Err(Refusal::forbidden("you may not upgrade this room"));
        }
        if !additional_creators.is_empty() && !version.creators_are_privileged() {
            return Err(Refusal::invalid("rooms of that version have one creator"));
        }
        let plan = self
            .replacement(old, user_id, version, additional_creators, &levels)
            .await?;
        let published = plan.published;
        let new = self
            .appender
            .append_new_room(self.creation.draft_events(plan)?)
            .await?;
        let tombstone = json!({
            "body": "This room has been replaced",
            "replacement_room": new.room_id,
        });
        self.replace(old, user_id, "m.room.tombstone", &tombstone).await?;
        if published {
            self.store.rooms.set_published(old.nid, false).await?;
        }
        self.store.rooms.move_aliases(old.nid, new.nid).await?;
        self.close_down(old, user_id).await?;
        self.settings_carry_over.carry_over(&new, user_id).await;
        Ok(new)
    }

    /// What the new room is to be.
    async fn replacement(
        &self,
        old: &Room,
        user_id: &UserId,
        version: RoomVersion,
        additional_creators: Vec<OwnedUserId>,
        levels: &PowerLevels,
    ) -> Result<Plan, Refusal> {
        let request = NewRoomRequest {
            creator: user_id.to_owned(),
            version,
            preset: Preset::PrivateChat,
            creation_content: self.creation_content(old, version, &additional_creators).await?,
            power_level_content_override: Map::new(),
            initial_state: Vec::new(),
            name: None,
            topic: None,
            alias: None,
            published: self.directory.is_published(old).await?,
            invite: Vec::new(),
            is_direct: false,
        };
        let people = self.store.accounts.people([user_id]).await?;
        let member = member_content(Membership::Join, people.get(user_id), None);
        let mut creators: BTreeSet<_> = additional_creators.into_iter().collect();
        creators.insert(user_id.to_owned());
        let Levels { first, last } = self.levels_for(old, user_id, version, &creators, levels).await?;
        let levels = |content| StateDraft::new("m.room.power_levels", "", Value::Object(content));
        let mut state = vec![
            StateDraft::new("m.room.member", user_id.as_str(), Value::Object(member)),
            levels(first),
        ];
        state.extend(self.carried_over(old).await?);
        state.extend(last.map(levels));
        Ok(Plan {
            create: initial_state::create_content(&request)?,
            state,
            version,
            creator: request.creator,
            alias: None,
            published: request.published,
        })
    }

    async fn creation_content(
        &self,
        old: &Room,
        version: RoomVersion,
        additional_creators: &[OwnedUserId],
    ) -> Result<Map<String, Value>, Refusal> {
        let mut content = self.content_of(old, "m.room.create").await?.unwrap_or_default();
        content.retain(|key, _| !NOT_CARRIED_OVER.contains(&key.as_str()));
        let mut predecessor = json!({ "room_id": old.room_id });
        if !version.room_id_is_hash() {
            predecessor["event_id"] = json!(old.head().extremities.first().map(|extremity| &extremity.id));
        }
        content.insert("predecessor".into(), predecessor);
        if !additional_creators.is_empty() {
            content.insert("additional_creators".into(), json!(additional_creators));
        }
        Ok(content)
    }

    async fn levels_for(
        &self,
        old: &Room,
        user_id: &UserId,
        version: RoomVersion,
        creators: &BTreeSet<OwnedUserId>,
        levels: &PowerLevels,
    ) -> Result<Levels, Refusal> {
        let present = self.content_of(old, "m.room.power_levels").await?;
        let privileged = old.version.creators_are_privileged() || present.is_none();
        let former = if privileged {
            levels.creators().clone()
        } else {
            BTreeSet::new()
        };
        Ok(carried_over(
            present.unwrap_or_default(),
            &former,
            version,
            creators,
            user_id,
        ))
    }

    /// The state that moves: settings, bans, and the rooms of a space.
    async fn carried_over(&self, old: &Room) -> Result<Vec<StateDraft>, Refusal> {
        let mut state = Vec::new();
        for event_type in CARRIED_OVER {
            let content = self.content_of(old, event_type).await?;
            state.extend(content.map(|content| StateDraft::new(event_type, "", Value::Object(content))));
        }
        let create = self.content_of(old, "m.room.create").await?.unwrap_or_default();
        if create.get("type").and_then(Value::as_str) == Some("m.space") {
            let all = self.repository.events(&old.head().state.events()).await?;
            let children = all
                .values()
                .filter(|stored| &*stored.event.event_type == "m.space.child");
            state.extend(children.filter_map(as_draft));
        }
        let bans = self.store.rooms.members(old.nid, &["ban"]).await?;
        let newest = bans.iter().rev().take(MOST_AT_ONCE);
        let nids: Vec<_> = newest.map(|stored| stored.membership.event).collect();
        state.extend(self.repository.events(&nids).await?.values().filter_map(as_draft));
        Ok(state)
    }

    /// Takes the old room's names away and lets ordinary members neither speak nor invite. What the one who upgrades
    /// may not change stays as it is.
    async fn close_down(&self, old: &Arc<Room>, user_id: &UserId) -> Result<(), Refusal> {
        if self.content_of(old, "m.room.canonical_alias").await?.is_some() {
            let done = self
                .replace(old, user_id, "m.room.canonical_alias", &json!({}))
                .await;
            unless_forbidden(done)?;
        }
        let levels = self
            .content_of(old, "m.room.power_levels")
            .await?
            .unwrap_or_default();
        if let Some(silent) = silenced(&levels) {
            let silent = Value::Object(silent);
            unless_forbidden(self.replace(old, user_id, "m.room.power_levels", &silent).await)?;
        }
        Ok(())
    }

    async fn content_of(&self, room: &Room, event_type: &str) -> Result<Option<Map<String, Value>>, Refusal> {
        let stored = self
            .repository
            .state_event(&room.head().state, event_type, "")
            .await?;
        Ok(stored.and_then(|stored| stored.event.content_as().ok()))
    }

    async fn replace(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        event_type: &str,
        content: &Value,
    ) -> Result<(), Refusal> {
        let content = Content::of(content).map_err(Refusal::internal)?;
        self.appender
            .set_state(room, Sender::now(sender), event_type, "", content)
            .await
            .map(drop)
    }
}

fn as_draft(stored: &Arc<StoredEvent>) -> Option<StateDraft> {
    let event = &stored.event;
    let content = event.content_as().ok()?;
    Some(StateDraft::new(
        &*event.event_type,
        event.state_key.as_deref()?,
        Value::Object(content),
    ))
}

fn unless_forbidden(done: Result<(), Refusal>) -> Result<(), Refusal> {
    match done {
        Err(Refusal::Forbidden(_)) => Ok(()),
        done => done,
    }
}
