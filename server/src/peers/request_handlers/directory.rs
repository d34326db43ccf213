//! Aliases, the room directory and spaces, for servers that need not be in the rooms.

use maru_protocol::wire::answer::{Refused, RefusedCode};
use maru_protocol::wire::bounded::{Json, Text};
use maru_protocol::wire::limits::{MAX_JSON_BYTES, MAX_ROOMS};
use maru_protocol::wire::request::directory::{Alias, AliasTarget, Hierarchy, PublicRooms, RoomList, Space};
use ruma::ServerName;
use ruma::directory::PublicRoomsChunk;

use super::refused;
use crate::peers::directory::space_hierarchy::written;
use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;
use crate::rooms::{DirectoryQuery, PageToken, Room};

/// Most bytes of JSON in one answer, so that it fits a frame.
const MOST_BYTES: usize = 4 << 20;

/// Most rooms of one page of the directory.
const LONGEST_PAGE: usize = 100;

impl RequestHandlers {
    /// The room behind an alias of this server.
    pub(super) async fn alias(&self, call: Alias) -> Result<AliasTarget, Refusal> {
        if call.alias.server_name() != self.identity.name() {
            return Err(Refusal::not_found("the alias belongs to another server"));
        }
        let (room_id, servers) = self.resolver.resolve_alias(&call.alias).await?;
        Ok(AliasTarget { room_id, servers })
    }

    /// A page of the directory.
    pub(super) async fn public_rooms(&self, call: PublicRooms) -> Result<RoomList, Refusal> {
        let from = call.since.as_deref().map(str::parse).transpose()?;
        let asked = DirectoryQuery {
            term: call.search.map(|search| search.to_string()),
            limit: Some(
                usize::try_from(call.limit)
                    .unwrap_or(LONGEST_PAGE)
                    .min(LONGEST_PAGE),
            ),
            from: from.unwrap_or_default(),
            ..DirectoryQuery::default()
        };
        let mut page = self.rooms.directory.page(&asked).await?;
        let mut rooms = Vec::with_capacity(page.rooms.len());
        let mut bytes = 0;
        for room in std::mem::take(&mut page.rooms) {
            let json = serde_json::to_string(&PublicRoomsChunk::from(room)).map_err(Refusal::internal)?;
            bytes += json.len();
            if bytes > MOST_BYTES && !rooms.is_empty() {
                break;
            }
            rooms.push(Json::from(&*json));
        }
        page.range.end = page.range.start + rooms.len();
        let token = |token: PageToken| Text::cut(&token.to_string());
        Ok(RoomList {
            next: page.next().map(token),
            previous: page.previous().map(token),
            total: u64::try_from(page.total).ok(),
            rooms,
        })
    }

    /// A space and those of its children that this server knows.
    pub(super) async fn hierarchy(&self, peer: &ServerName, call: Hierarchy) -> Result<Space, Refused> {
        let unknown = || Refused::new(RefusedCode::NotFound, "there is no such room for your server");
        let room = self.local.present(&call.room_id).await.map_err(refused)?;
        let room = room.ok_or_else(unknown)?;
        if !self.is_shown_to(&room, peer).await.map_err(refused)? {
            return Err(unknown());
        }
        self.space_for(peer, &room, call.suggested_only)
            .await
            .map_err(refused)
    }

    async fn space_for(
        &self,
        peer: &ServerName,
        room: &Room,
        suggested_only: bool,
    ) -> Result<Space, Refusal> {
        let unwritable = || Refusal::internal("a room that cannot be written");
        let top = self.rooms.previews.space_room(room, suggested_only).await?;
        let text = written(&top).ok_or_else(unwritable)?;
        if text.len() > MAX_JSON_BYTES {
            return Err(Refusal::TooLarge(
                "the space has too many children for one answer".into(),
            ));
        }
        let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
        let mut bytes = text.len();
        for child in top.children.iter().take(MAX_ROOMS) {
            let Some(room) = self.local.present(&child.room_id).await? else {
                continue;
            };
            if !self.is_shown_to(&room, peer).await? {
                inaccessible.push(child.room_id.clone());
                continue;
            }
            let child = self.rooms.previews.space_room(&room, suggested_only).await?;
            let text = written(&child).ok_or_else(unwritable)?;
            bytes += text.len();
            if bytes > MOST_BYTES || text.len() > MAX_JSON_BYTES {
                // Those that are left out are asked for by themselves.
                break;
            }
            children.push(Json::from(&*text));
        }
        Ok(Space {
            room: Json::from(&*text),
            children,
            inaccessible,
        })
    }

    /// Whether a peer may see a room as part of a space.
    async fn is_shown_to(&self, room: &Room, peer: &ServerName) -> Result<bool, Refusal> {
        Ok(self.rooms.repository.admits(room, peer).await?
            && self.rooms.previews.may_preview_from(room, peer).await?)
    }
}
