//! Which servers a room lets take part (client-server API, "Server Access Control Lists"; `m.federate`).

use ruma::ServerName;
use ruma::events::room::server_acl::RoomServerAclEventContent;
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};

impl RoomRepository {
    /// Whether a room's server ACL, by its committed state, lets another server take part. One that cannot be read lets
    /// nobody.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn admits(&self, room: &Room, server_name: &ServerName) -> Result<bool, Refusal> {
        let state = &room.head().state;
        let Some(acl) = self.state_event(state, "m.room.server_acl", "").await? else {
            return Ok(true);
        };
        let acl = acl.event.content_as::<RoomServerAclEventContent>();
        Ok(acl.is_ok_and(|acl| acl.is_allowed(server_name)))
    }

    /// Whether users of other servers than its creator's may be in a room.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_federated(&self, room: &Room) -> Result<bool, Refusal> {
        #[derive(Deserialize)]
        struct Create {
            #[serde(rename = "m.federate", default = "yes")]
            federate: bool,
        }
        fn yes() -> bool {
            true
        }
        let create = self.state_event(&room.head().state, "m.room.create", "").await?;
        let create = create.and_then(|stored| stored.event.content_as::<Create>().ok());
        Ok(create.is_none_or(|create| create.federate))
    }
}
