//! The directory of another server, for clients of this one.

use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::request::directory::PublicRooms;
use ruma::ServerName;
use ruma::directory::PublicRoomsChunk;
use std::sync::Arc;

use crate::peers::dependencies::Dependencies;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;

/// A part of another server's directory.
#[derive(Debug)]
pub struct RemoteDirectory {
    /// The rooms. Those whose entry cannot be read are left out.
    pub rooms: Vec<PublicRoomsChunk>,
    /// Where to go on.
    pub next: Option<String>,
    /// Where the part before begins.
    pub previous: Option<String>,
    /// About how many rooms there are.
    pub total: Option<u64>,
}

/// The room directories of other servers.
#[derive(Debug)]
pub struct RemoteDirectories {
    rpc: Arc<RpcClient>,
}

impl RemoteDirectories {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            rpc: Arc::clone(&dependencies.rpc),
        }
    }

    /// A part of another server's directory.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for a token or a search that is too long, and what the server says.
    pub async fn public_rooms(
        &self,
        server_name: &ServerName,
        limit: Option<usize>,
        since: Option<&str>,
        search: Option<&str>,
    ) -> Result<RemoteDirectory, Refusal> {
        let text = |text: &str| {
            Text::new(text).ok_or_else(|| Refusal::invalid("that is too long for the directory"))
        };
        let call = PublicRooms {
            limit: limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            since: since.map(text).transpose()?,
            search: search.map(text).transpose()?,
        };
        let done = self.rpc.request(server_name, call).await?;
        Ok(RemoteDirectory {
            rooms: done
                .rooms
                .iter()
                .filter_map(|json| serde_json::from_str(json).ok())
                .collect(),
            next: done.next.map(|next| next.to_string()),
            previous: done.previous.map(|previous| previous.to_string()),
            total: done.total,
        })
    }
}
