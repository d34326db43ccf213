//! Rooms as those see them who think of joining: summaries, and what a space says of its children (client-server API,
//! "Spaces" and "Room previews").

use std::sync::Arc;

use maru_protocol::visibility::{HistoryVisibility, Membership};
use ruma::room::{AllowRule, JoinRule, Restricted, RoomSummary};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::refusal::Refusal;
use crate::rooms::server_visibility::ServerMembership;
use crate::rooms::{JoinRules, Room, RoomRepository, ServerVisibility, Summaries};
use crate::store::Store;
use crate::store::rooms::events::StoredEvent;

/// A room of a tree.
#[derive(Clone, Debug)]
pub struct TreeRoom {
    /// The room.
    pub summary: RoomSummary,
    /// Its children, in their order.
    pub children: Vec<TreeChild>,
}

/// A child of a space, as the space names it.
#[derive(Clone, Debug)]
pub struct TreeChild {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    pub via: Vec<OwnedServerName>,
    /// The stripped `m.space.child` event, with its time.
    pub json: Box<RawValue>,
}

impl TreeChild {
    /// Reads a stripped `m.space.child` event. One without a way to get there is no child.
    #[must_use]
    pub fn read(json: Box<RawValue>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Stripped {
            #[serde(rename = "type")]
            event_type: String,
            state_key: OwnedRoomId,
            content: Child,
        }
        let stripped: Stripped = serde_json::from_str(json.get()).ok()?;
        let fits = stripped.event_type == "m.space.child" && !stripped.content.via.is_empty();
        fits.then(|| Self {
            room_id: stripped.state_key,
            via: stripped.content.servers(),
            json,
        })
    }
}

/// Previews of rooms, and spaces with their children, for those who may join.
#[derive(Debug)]
pub struct RoomPreviews {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) summaries: Arc<Summaries>,
    pub(in crate::rooms) join_rules: Arc<JoinRules>,
    pub(in crate::rooms) server_visibility: Arc<ServerVisibility>,
}

impl RoomPreviews {
    /// A room as somebody who may join it sees it, and the membership of who asks.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also for those who may not know of the room.
    pub async fn preview(
        &self,
        room: &Room,
        user_id: Option<&UserId>,
    ) -> Result<(RoomSummary, Option<Membership>), Refusal> {
        if !self.may_preview(room, user_id).await? {
            return Err(Refusal::not_found("this server does not know that room"));
        }
        let membership = match user_id {
            Some(user_id) => self.repository.membership(room, user_id).await?,
            None => None,
        };
        Ok((self.summaries.of_room(room).await?, membership))
    }

    /// A room as part of a tree, with its children. Costs grow with the state of a space.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn space_room(&self, room: &Room, suggested_only: bool) -> Result<TreeRoom, Refusal> {
        let children = self.children(room, suggested_only).await?;
        Ok(TreeRoom {
            summary: self.summaries.of_room(room).await?,
            children: children.iter().filter_map(|stored| tree_child(stored)).collect(),
        })
    }

    /// The children of a space in their order; none for other rooms.
    async fn children(&self, room: &Room, suggested_only: bool) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = &room.head().state;
        let create = self.repository.state_event(state, "m.room.create", "").await?;
        let create = create.and_then(|stored| stored.event.content_as::<Value>().ok());
        if create.is_none_or(|content| content["type"] != "m.space") {
            return Ok(Vec::new());
        }
        let all = self.repository.events(&state.events()).await?;
        let children = all.into_values().filter(|stored| child_of(stored).is_some());
        let mut children: Vec<_> = children
            .filter(|child| !suggested_only || is_suggested(child))
            .collect();
        children.sort_by_cached_key(place_among_children);
        Ok(children)
    }

    /// Whether somebody may know what a room is: members, those invited, and those who could join or knock.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn may_preview(&self, room: &Room, user_id: Option<&UserId>) -> Result<bool, Refusal> {
        let state = &room.head().state;
        let rule = self
            .repository
            .state_event(state, "m.room.join_rules", "")
            .await?;
        let rule = rule.and_then(|stored| stored.event.content_as::<JoinRule>().ok());
        let open = matches!(
            rule,
            Some(JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_))
        );
        if open || self.repository.history_visibility(room).await? == HistoryVisibility::WorldReadable {
            return Ok(true);
        }
        let Some(user_id) = user_id else { return Ok(false) };
        match self.repository.membership(room, user_id).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => return Ok(true),
            Some(Membership::Ban) => return Ok(false),
            Some(Membership::Leave) | None => {}
        }
        match rule {
            Some(JoinRule::Restricted(rule)) => match self.join_rules.check_allowed(&rule, user_id).await {
                Ok(()) => Ok(true),
                Err(Refusal::Forbidden(_) | Refusal::UnableToAuthoriseJoin(_)) => Ok(false),
                Err(refusal) => Err(refusal),
            },
            _ => Ok(false),
        }
    }

    /// Whether another server may know what a room is, for its users: one that is in it or has somebody invited, and any
    /// where its users could join or knock.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn may_preview_from(&self, room: &Room, server_name: &ServerName) -> Result<bool, Refusal> {
        if self.may_preview(room, None).await? {
            return Ok(true);
        }
        if self.server_visibility.membership_of(room, server_name).await? == Some(ServerMembership::Present) {
            return Ok(true);
        }
        let expected = self.store.rooms.members(room.nid, &["invite", "knock"]).await?;
        if expected
            .iter()
            .any(|member| member.membership.user_id.server_name() == server_name)
        {
            return Ok(true);
        }
        let rule = self
            .repository
            .state_event(&room.head().state, "m.room.join_rules", "")
            .await?;
        let rule = rule.and_then(|stored| stored.event.content_as::<JoinRule>().ok());
        let Some(JoinRule::Restricted(rule)) = rule else {
            return Ok(false);
        };
        for opening in rooms_of(&rule) {
            match self.repository.room(opening).await {
                Ok(room) if room.head().servers.contains_key(server_name) => return Ok(true),
                Ok(_) | Err(Refusal::NotFound(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(false)
    }
}

#[derive(Deserialize)]
struct Child {
    via: Vec<String>,
    order: Option<Value>,
    #[serde(default)]
    suggested: Value,
}

impl Child {
    fn servers(&self) -> Vec<OwnedServerName> {
        let servers = self.via.iter().filter_map(|name| name.as_str().try_into().ok());
        servers.collect()
    }
}

/// The rooms whose members a restricted room lets in.
fn rooms_of(rule: &Restricted) -> impl Iterator<Item = &RoomId> {
    rule.allow.iter().filter_map(|rule| match rule {
        AllowRule::RoomMembership(rule) => Some(&*rule.room_id),
        _ => None,
    })
}

/// A child of a space in stripped form.
fn tree_child(stored: &StoredEvent) -> Option<TreeChild> {
    let event = &stored.event;
    let stripped = json!({
        "type": event.event_type,
        "state_key": event.state_key,
        "sender": event.sender,
        "content": event.content,
        "origin_server_ts": event.origin_server_ts,
    });
    TreeChild::read(to_raw_value(&stripped).ok()?)
}

/// The room that an `m.space.child` event makes a child. One without a way to get there is no child.
fn child_of(stored: &StoredEvent) -> Option<OwnedRoomId> {
    let event = &stored.event;
    if &*event.event_type != "m.space.child" || event.content_as::<Child>().ok()?.via.is_empty() {
        return None;
    }
    event.state_key.as_deref()?.try_into().ok()
}

fn is_suggested(stored: &Arc<StoredEvent>) -> bool {
    stored
        .event
        .content_as::<Child>()
        .is_ok_and(|child| child.suggested == true)
}

/// Children with an order come first, by it; the others by age.
fn place_among_children(stored: &Arc<StoredEvent>) -> (bool, String, u64, Option<Box<str>>) {
    let order = stored
        .event
        .content_as::<Child>()
        .ok()
        .and_then(|child| child.order);
    let order = order.as_ref().and_then(Value::as_str);
    let order =
        order.filter(|order| order.len() <= 50 && order.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    (
        order.is_none(),
        order.unwrap_or_default().to_owned(),
        stored.event.origin_server_ts,
        stored.event.state_key.clone(),
    )
}
