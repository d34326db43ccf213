//! What a room shows of itself to those outside (client-server API, "Published room directory" and "Room previews").

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::auth::{SlotHash, StateSlot};
use maru_protocol::state::EventNid;
use maru_protocol::visibility::HistoryVisibility;
use ruma::room::{AllowRule, JoinRule, JoinRuleSummary, RestrictedSummary, RoomSummary, RoomType};
use ruma::{OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, RoomVersionId, UInt};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::{RoomHead, StoredRoom};

/// The state that a summary is made from, all with the empty state key.
const SHOWN: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
];

/// Summaries and stripped state: what rooms show of themselves to those outside.
#[derive(Debug)]
pub struct Summaries {
    pub(in crate::rooms) repository: Arc<RoomRepository>,
}

impl Summaries {
    /// Summaries of rooms, in the same order. However many rooms: at most one query each for heads, states and events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::rooms) async fn of_rooms(
        &self,
        rooms: &[StoredRoom],
        heads: &HashMap<i64, Arc<RoomHead>>,
    ) -> Result<Vec<RoomSummary>, Refusal> {
        let slots = SHOWN.map(|event_type| StateSlot::new(event_type, "").hash());
        let of_head = |head: &Arc<RoomHead>| slots.map(|slot: SlotHash| head.state.get(&slot));
        let shown: Vec<_> = rooms
            .iter()
            .map(|room| heads.get(&room.nid).map(of_head))
            .collect();
        let nids: Vec<EventNid> = shown.iter().flatten().flatten().flatten().copied().collect();
        let events = self.repository.events(&nids).await?;
        let summaries = rooms.iter().zip(&shown).map(|(room, nids)| {
            let event = |index: usize| events.get(&(*nids)?.get(index).copied()??);
            let joined = heads.get(&room.nid).map_or(0, |head| head.joined);
            summary(room, joined, &event)
        });
        Ok(summaries.collect())
    }

    /// Those of some rooms (rooms.nid) that anybody may join or read. However many rooms: at most one query each for
    /// heads, states and events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open_among(&self, rooms: impl IntoIterator<Item = i64>) -> Result<HashSet<i64>, Refusal> {
        let heads = self.repository.heads_of(rooms.into_iter().collect()).await?;
        let slots = ["m.room.join_rules", "m.room.history_visibility"];
        let slots = slots.map(|event_type| StateSlot::new(event_type, "").hash());
        let deciding = |head: &Arc<RoomHead>| slots.map(|slot| head.state.get(&slot));
        let nids: Vec<EventNid> = heads.values().flat_map(deciding).flatten().collect();
        let events = self.repository.events(&nids).await?;
        let is_open = |head: &Arc<RoomHead>| {
            let [rule, visibility] = deciding(head).map(|nid| events.get(&nid?));
            let rule = content::<JoinRule>(rule);
            let visibility = visibility.map(|stored| HistoryVisibility::of(&stored.event));
            rule == Some(JoinRule::Public) || visibility == Some(HistoryVisibility::WorldReadable)
        };
        let open = heads.iter().filter(|(_, head)| is_open(head));
        Ok(open.map(|(room, _)| *room).collect())
    }

    pub(in crate::rooms) async fn of_room(&self, room: &Room) -> Result<RoomSummary, Refusal> {
        let stored = StoredRoom {
            nid: room.nid,
            room_id: room.room_id.clone(),
            version: room.version.as_str().to_owned(),
            published: false,
        };
        let heads = [(room.nid, room.head())].into();
        let mut summaries = self.of_rooms(&[stored], &heads).await?;
        summaries
            .pop()
            .ok_or_else(|| Refusal::internal("a room has no summary"))
    }
}

/// Makes a summary; `event` finds the event of a type by its place in [`SHOWN`].
fn summary<'e>(
    room: &StoredRoom,
    joined: u64,
    event: &dyn Fn(usize) -> Option<&'e Arc<StoredEvent>>,
) -> RoomSummary {
    let visibility = event(6).map_or_else(HistoryVisibility::default, |stored| {
        HistoryVisibility::of(&stored.event)
    });
    let guests: Option<GuestAccess> = content(event(7));
    let mut summary = RoomSummary::new(
        room.room_id.clone(),
        content::<JoinRule>(event(5)).map_or(JoinRuleSummary::Invite, |rule| join_rule(&rule)),
        guests.is_some_and(|guests| guests.guest_access == "can_join"),
        UInt::try_from(joined).unwrap_or(UInt::MAX),
        visibility == HistoryVisibility::WorldReadable,
    );
    summary.room_type = content::<Create>(event(0)).and_then(|create| create.room_type);
    summary.name = content::<Name>(event(1))
        .map(|name| name.name)
        .filter(|name| !name.is_empty());
    summary.topic = content::<Topic>(event(2))
        .map(|topic| topic.topic)
        .filter(|topic| !topic.is_empty());
    summary.avatar_url = content::<Avatar>(event(3)).map(|avatar| avatar.url);
    summary.canonical_alias = content::<Alias>(event(4)).map(|alias| alias.alias);
    summary.encryption = content::<Encryption>(event(8)).map(|encryption| encryption.algorithm.into());
    summary.room_version = RoomVersionId::try_from(room.version.as_str()).ok();
    summary
}

fn content<T: DeserializeOwned>(stored: Option<&Arc<StoredEvent>>) -> Option<T> {
    stored?.event.content_as().ok()
}

/// The join rule as a summary gives it. An unknown rule lets nobody in.
fn join_rule(rule: &JoinRule) -> JoinRuleSummary {
    let opened_by = |allow: &[AllowRule]| {
        let rooms = allow.iter().filter_map(|rule| match rule {
            AllowRule::RoomMembership(rule) => Some(rule.room_id.clone()),
            _ => None,
        });
        RestrictedSummary::new(rooms.collect::<Vec<OwnedRoomId>>())
    };
    match rule {
        JoinRule::Knock => JoinRuleSummary::Knock,
        JoinRule::Private => JoinRuleSummary::Private,
        JoinRule::Restricted(rule) => JoinRuleSummary::Restricted(opened_by(&rule.allow)),
        JoinRule::KnockRestricted(rule) => JoinRuleSummary::KnockRestricted(opened_by(&rule.allow)),
        JoinRule::Public => JoinRuleSummary::Public,
        _ => JoinRuleSummary::Invite,
    }
}

#[derive(Deserialize)]
struct Create {
    #[serde(rename = "type")]
    room_type: Option<RoomType>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Deserialize)]
struct Avatar {
    url: OwnedMxcUri,
}

#[derive(Deserialize)]
struct Alias {
    alias: OwnedRoomAliasId,
}

#[derive(Deserialize)]
struct GuestAccess {
    guest_access: String,
}

#[derive(Deserialize)]
struct Encryption {
    algorithm: String,
}
