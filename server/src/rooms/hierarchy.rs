//! Rooms as those see them who think of joining: summaries and the tree of a space (client-server API, "Spaces" and
//! "Room previews").

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::visibility::{HistoryVisibility, Membership};
use ruma::room::{JoinRule, RoomSummary};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{Room, Rooms};
use crate::refusal::Refusal;
use crate::store::events::StoredEvent;
use crate::store::rooms::StoredRoom;

/// Most rooms of one answer.
const LONGEST_PAGE: usize = 50;

/// Most rooms that a walk visits, over all its pages.
const LONGEST_WALK: usize = 1_000;

/// Which part of a space's tree somebody wants to see.
#[derive(Clone, Copy, Debug)]
pub struct HierarchyQuery {
    /// How many rooms come before it.
    pub from: usize,
    /// How many rooms.
    pub limit: Option<usize>,
    /// How far down; the space itself is at depth 0.
    pub max_depth: Option<usize>,
    /// Whether children that are not suggested are left out.
    pub suggested_only: bool,
}

/// A room of a tree.
#[derive(Clone, Debug)]
pub struct TreeRoom {
    /// The room.
    pub summary: RoomSummary,
    /// Its `m.space.child` events, in the order of the children.
    pub children: Vec<Arc<StoredEvent>>,
}

/// A part of a tree, from the top down.
#[derive(Clone, Debug)]
pub struct TreePage {
    /// The rooms.
    pub rooms: Vec<TreeRoom>,
    /// How many rooms come before the next part, if there is one.
    pub next: Option<usize>,
}

impl Rooms {
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
            Some(user_id) => self.membership(room, user_id).await?,
            None => None,
        };
        Ok((self.summary_of(room).await?, membership))
    }

    /// A part of the tree under a space, walked depth first. Rooms that the user may not know of are left out.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the user may not know of the space itself.
    pub async fn hierarchy(
        &self,
        space: &RoomId,
        user_id: &UserId,
        asked: HierarchyQuery,
    ) -> Result<TreePage, Refusal> {
        let top = self.room(space).await?;
        if !self.may_preview(&top, Some(user_id)).await? {
            return Err(Refusal::forbidden("you may not look into that space"));
        }
        let limit = asked.limit.unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE);
        let end = asked.from.saturating_add(limit);
        let mut rooms = Vec::new();
        let mut seen = HashSet::from([top.room_id.clone()]);
        let (mut waiting, mut visited) = (vec![(top, 0)], 0);
        while let Some((room, depth)) = waiting.pop() {
            if visited == end || visited == LONGEST_WALK {
                return Ok(TreePage {
                    rooms,
                    next: (visited < LONGEST_WALK).then_some(visited),
                });
            }
            let children = self.children(&room, asked.suggested_only).await?;
            if asked.max_depth.is_none_or(|deepest| depth < deepest) {
                for child in children.iter().rev().filter_map(|stored| child_of(stored)) {
                    if let Some(child) = self.next_in_tree(&child, user_id, &mut seen).await? {
                        waiting.push((child, depth + 1));
                    }
                }
            }
            if visited >= asked.from {
                let summary = self.summary_of(&room).await?;
                rooms.push(TreeRoom { summary, children });
            }
            visited += 1;
        }
        Ok(TreePage { rooms, next: None })
    }

    /// A child that was not met before and that the user may know of.
    async fn next_in_tree(
        &self,
        child: &RoomId,
        user_id: &UserId,
        seen: &mut HashSet<OwnedRoomId>,
    ) -> Result<Option<Arc<Room>>, Refusal> {
        if seen.len() > LONGEST_WALK || !seen.insert(child.to_owned()) {
            return Ok(None);
        }
        match self.room(child).await {
            Ok(room) if self.may_preview(&room, Some(user_id)).await? => Ok(Some(room)),
            Ok(_) | Err(Refusal::NotFound(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The children of a space in their order; none for other rooms.
    async fn children(&self, room: &Room, suggested_only: bool) -> Result<Vec<Arc<StoredEvent>>, Refusal> {
        let state = &room.head().state;
        let create = self.state_event(state, "m.room.create", "").await?;
        let create = create.and_then(|stored| stored.event.content_as::<Value>().ok());
        if create.is_none_or(|content| content["type"] != "m.space") {
            return Ok(Vec::new());
        }
        let all = self.events(&state.events()).await?;
        let children = all.into_values().filter(|stored| child_of(stored).is_some());
        let mut children: Vec<_> = children
            .filter(|child| !suggested_only || is_suggested(child))
            .collect();
        children.sort_by_cached_key(place_among_children);
        Ok(children)
    }

    async fn summary_of(&self, room: &Room) -> Result<RoomSummary, Refusal> {
        let stored = StoredRoom {
            nid: room.nid,
            room_id: room.room_id.clone(),
            version: room.version.as_str().to_owned(),
            published: false,
        };
        let heads = [(room.nid, room.head())].into();
        let mut summaries = self.summaries(&[stored], &heads).await?;
        summaries
            .pop()
            .ok_or_else(|| Refusal::internal("a room has no summary"))
    }

    /// Whether somebody may know what a room is: members, those invited, and those who could join or knock.
    async fn may_preview(&self, room: &Room, user_id: Option<&UserId>) -> Result<bool, Refusal> {
        let state = &room.head().state;
        let rule = self.state_event(state, "m.room.join_rules", "").await?;
        let rule = rule.and_then(|stored| stored.event.content_as::<JoinRule>().ok());
        let open = matches!(
            rule,
            Some(JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_))
        );
        if open || self.history_visibility(room).await? == HistoryVisibility::WorldReadable {
            return Ok(true);
        }
        let Some(user_id) = user_id else { return Ok(false) };
        match self.membership(room, user_id).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => return Ok(true),
            Some(Membership::Ban) => return Ok(false),
            Some(Membership::Leave) | None => {}
        }
        match rule {
            Some(JoinRule::Restricted(rule)) => match self.check_allowed(&rule, user_id).await {
                Ok(()) => Ok(true),
                Err(Refusal::Forbidden(_) | Refusal::UnableToAuthoriseJoin(_)) => Ok(false),
                Err(refusal) => Err(refusal),
            },
            _ => Ok(false),
        }
    }
}

#[derive(Deserialize)]
struct Child {
    via: Vec<String>,
    order: Option<Value>,
    #[serde(default)]
    suggested: Value,
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
