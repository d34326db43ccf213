//! The tree of a space, as far as this server and those that its spaces name know it (client-server API, "Spaces" and
//! "Room previews").

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use maru_protocol::visibility::Membership;
use maru_protocol::wire::request::directory::Hierarchy;
use ruma::room::{JoinRuleSummary, RoomSummary};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, RoomOrAliasId, UserId};
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::time::{Instant, timeout_at};

use crate::peers::dependencies::Dependencies;
use crate::peers::membership::local_rooms::LocalRooms;
use crate::peers::membership::room_resolution::RoomResolver;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::rooms::{TreeChild, TreeRoom};

/// Most rooms of one answer.
const LONGEST_PAGE: usize = 50;

/// Most rooms that a walk visits, over all its pages.
const LONGEST_WALK: usize = 1_000;

/// Most requests to other servers that one page makes.
const MOST_ASKED: usize = 24;

/// How long other servers are asked for one page, all together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most servers that are asked for one room.
const MOST_SERVERS: usize = 3;

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

/// A part of a tree, from the top down.
#[derive(Clone, Debug)]
pub struct TreePage {
    /// The rooms.
    pub rooms: Vec<TreeRoom>,
    /// How many rooms come before the next part, if there is one.
    pub next: Option<usize>,
}

/// A walk along a tree.
struct Walk<'a> {
    user_id: Option<&'a UserId>,
    suggested_only: bool,
    /// Rooms that other servers sent with their parents.
    remote: HashMap<OwnedRoomId, TreeRoom>,
    asks_left: usize,
    /// Servers that could not be asked: once is enough for a page.
    unreached: HashSet<OwnedServerName>,
    /// When no more are asked.
    deadline: Instant,
}

impl<'a> Walk<'a> {
    fn new(user_id: Option<&'a UserId>, suggested_only: bool) -> Self {
        Self {
            user_id,
            suggested_only,
            remote: HashMap::new(),
            asks_left: MOST_ASKED,
            unreached: HashSet::new(),
            deadline: Instant::now() + PATIENCE,
        }
    }
}

/// The walk along the tree of a space, over this server's rooms and those of others.
#[derive(Debug)]
pub struct SpaceHierarchy {
    rooms: Arc<Rooms>,
    local: Arc<LocalRooms>,
    resolver: Arc<RoomResolver>,
    rpc: Arc<RpcClient>,
}

impl SpaceHierarchy {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            rooms: Arc::clone(&dependencies.rooms),
            local: Arc::clone(&dependencies.local),
            resolver: Arc::clone(&dependencies.resolver),
            rpc: Arc::clone(&dependencies.rpc),
        }
    }

    /// A room as somebody who may join it sees it, and the membership of who asks.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] also for those who may not know of the room.
    pub async fn preview(
        &self,
        name: &RoomOrAliasId,
        user_id: Option<&UserId>,
        via: Vec<OwnedServerName>,
    ) -> Result<(RoomSummary, Option<Membership>), Refusal> {
        let unknown = || Refusal::not_found("no server is known that knows that room");
        let here = match self.rooms.repository.room_named(name).await {
            Ok(room) => self.local.present(&room.room_id).await?,
            Err(Refusal::NotFound(_)) => None,
            Err(refusal) => return Err(refusal),
        };
        if let Some(room) = here {
            return self.rooms.previews.preview(&room, user_id).await;
        }
        // Strangers do not make this server ask others.
        let asking = user_id.ok_or_else(unknown)?;
        let (room_id, via) = self.resolver.locate(name, via).await?;
        let membership = self
            .rooms
            .remote_memberships
            .stored_membership(&room_id, asking)
            .await?;
        let mut walk = Walk::new(user_id, false);
        let room = self.tree_room(&mut walk, &room_id, &via).await?;
        let membership = membership.and_then(|(stored, _)| stored.membership.membership.parse().ok());
        Ok((room.ok_or_else(unknown)?.summary, membership))
    }

    /// A part of the tree under a space, walked depth first. Rooms that the user may not know of are left out, and those
    /// that no server knows.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the user may not know of the space itself.
    pub async fn hierarchy(
        &self,
        space: &RoomId,
        user_id: &UserId,
        asked: HierarchyQuery,
    ) -> Result<TreePage, Refusal> {
        let mut walk = Walk::new(Some(user_id), asked.suggested_only);
        let via: Vec<OwnedServerName> = space.server_name().map(ToOwned::to_owned).into_iter().collect();
        let top = self.tree_room(&mut walk, space, &via).await?;
        let top = top.ok_or_else(|| Refusal::forbidden("you may not look into that space"))?;
        let limit = asked.limit.unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE);
        let end = asked.from.saturating_add(limit);
        let mut rooms = Vec::new();
        let mut seen = HashSet::from([top.summary.room_id.clone()]);
        let mut visited = 0;
        let mut room = Some((top, 0));
        let mut waiting: Vec<(TreeChild, usize)> = Vec::new();
        loop {
            if let Some((room, depth)) = room.take() {
                if visited == end || visited == LONGEST_WALK {
                    return Ok(TreePage {
                        rooms,
                        next: (visited < LONGEST_WALK).then_some(visited),
                    });
                }
                if asked.max_depth.is_none_or(|deepest| depth < deepest) {
                    let children = room.children.iter().rev();
                    waiting.extend(children.map(|child| (child.clone(), depth + 1)));
                }
                if visited >= asked.from {
                    rooms.push(room);
                }
                visited += 1;
            }
            let Some((child, depth)) = waiting.pop() else {
                return Ok(TreePage { rooms, next: None });
            };
            if seen.len() <= LONGEST_WALK && seen.insert(child.room_id.clone()) {
                let found = self.tree_room(&mut walk, &child.room_id, &child.via).await?;
                room = found.map(|found| (found, depth));
            }
        }
    }

    /// A room of a walk, by this server or another that knows it; none where the user may not know of it.
    async fn tree_room(
        &self,
        walk: &mut Walk<'_>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<Option<TreeRoom>, Refusal> {
        if let Some(room) = self.local.present(room_id).await? {
            return match self.rooms.previews.may_preview(&room, walk.user_id).await? {
                true => self
                    .rooms
                    .previews
                    .space_room(&room, walk.suggested_only)
                    .await
                    .map(Some),
                false => Ok(None),
            };
        }
        let remote = match walk.remote.remove(room_id) {
            Some(room) => Some(room),
            None => self.ask_around(walk, room_id, via).await,
        };
        let Some(room) = remote else { return Ok(None) };
        let open = self.is_open_to(&room.summary, walk.user_id).await?;
        Ok(open.then_some(room))
    }

    /// A room by another server's account.
    async fn ask_around(
        &self,
        walk: &mut Walk<'_>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Option<TreeRoom> {
        let servers = self.resolver.candidates(via.iter().cloned(), None);
        let reached = servers.iter().filter(|server| !walk.unreached.contains(*server));
        let reached: Vec<_> = reached.take(MOST_SERVERS).collect();
        for server in reached {
            walk.asks_left = walk.asks_left.checked_sub(1)?;
            let call = Hierarchy {
                room_id: room_id.to_owned(),
                suggested_only: walk.suggested_only,
            };
            let done = match timeout_at(walk.deadline, self.rpc.request(server, call)).await {
                Ok(Ok(done)) => done,
                Ok(Err(Refusal::Unavailable(_))) | Err(_) => {
                    walk.unreached.insert(server.clone());
                    continue;
                }
                Ok(Err(_)) => continue,
            };
            let Some(room) = read(&done.room).filter(|room| room.summary.room_id == room_id) else {
                tracing::debug!(%server, %room_id, "an answer about a space cannot be read");
                continue;
            };
            let named: HashSet<&RoomId> = room.children.iter().map(|child| &*child.room_id).collect();
            let children = done.children.iter().filter_map(|json| read(json));
            let children = children.filter(|child| named.contains(&*child.summary.room_id));
            walk.remote
                .extend(children.map(|child| (child.summary.room_id.clone(), child)));
            return Some(room);
        }
        None
    }

    /// Whether somebody may know of a room of which no more than its summary is here.
    async fn is_open_to(&self, summary: &RoomSummary, user_id: Option<&UserId>) -> Result<bool, Refusal> {
        if summary.world_readable {
            return Ok(true);
        }
        match &summary.join_rule {
            JoinRuleSummary::Public | JoinRuleSummary::Knock | JoinRuleSummary::KnockRestricted(_) => {
                return Ok(true);
            }
            _ => {}
        }
        let Some(user_id) = user_id else { return Ok(false) };
        let outside = self
            .rooms
            .remote_memberships
            .stored_membership(&summary.room_id, user_id)
            .await?;
        if outside.is_some_and(|(stored, _)| stored.membership.membership == "invite") {
            return Ok(true);
        }
        let JoinRuleSummary::Restricted(rule) = &summary.join_rule else {
            return Ok(false);
        };
        for opening in &rule.allowed_room_ids {
            if self
                .local
                .present(opening)
                .await?
                .is_some_and(|room| room.is_joined(user_id))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// An entry of `rooms` as the client-server API shows it. Only what is understood is taken over.
fn read(json: &str) -> Option<TreeRoom> {
    let mut entry: Value = serde_json::from_str(json).ok()?;
    let children = entry.as_object_mut()?.remove("children_state");
    let children = children.as_ref().and_then(Value::as_array);
    let children = children.into_iter().flatten();
    Some(TreeRoom {
        summary: serde_json::from_value(entry).ok()?,
        children: children
            .filter_map(|child| TreeChild::read(to_raw_value(child).ok()?))
            .collect(),
    })
}

/// An entry of `rooms`, to be read by another server.
pub(in crate::peers) fn written(room: &TreeRoom) -> Option<String> {
    let mut entry = serde_json::to_value(&room.summary).ok()?;
    let children = room.children.iter();
    let children = children.filter_map(|child| serde_json::from_str::<Value>(child.json.get()).ok());
    entry
        .as_object_mut()?
        .insert("children_state".to_owned(), Value::Array(children.collect()));
    Some(entry.to_string())
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, uint};

    use crate::peers::directory::space_hierarchy::*;

    #[test]
    fn a_room_of_a_tree_reads_back_as_it_was_written() {
        let child = r#"{"type":"m.space.child","state_key":"!b:x","sender":"@a:x","content":{"via":["x"]},"origin_server_ts":1}"#;
        let id = owned_room_id!("!a:x");
        let room = TreeRoom {
            summary: RoomSummary::new(id.clone(), JoinRuleSummary::Public, false, uint!(3), true),
            children: TreeChild::read(serde_json::value::RawValue::from_string(child.to_owned()).unwrap())
                .into_iter()
                .collect(),
        };
        let back = read(&written(&room).unwrap()).unwrap();
        assert_eq!(back.summary.room_id, id);
        assert_eq!(back.summary.num_joined_members, uint!(3));
        assert_eq!(back.children.len(), 1);
        assert_eq!(back.children[0].via, ["x"]);
        assert!(read("[]").is_none());
    }
}
