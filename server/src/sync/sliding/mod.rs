//! Sliding sync: the rooms that a client asks for, and of each what it asks for (MSC4186; `/v4/sync` and, in its older form,
//! `org.matrix.simplified_msc3575`).
//!
//! A client has connections; each is a chain of requests, of which the next names the answer to the one before by its `pos`.
//! What is new comes from the same windows as that of `/sync` ([`super::window`]); what a connection adds is which rooms
//! the device has, and up to where.
//!
//! - [`request`], [`required_state`]: what is asked for. [`room_list`]: the user's rooms by activity, and which of them are
//!   asked for.
//! - [`connection`]: what the device has been sent. [`connections`]: all of them, in memory and in the database.
//! - [`gather`]: what is new for the device. [`room_state`]: what of rooms' state is sent.
//! - [`session`]: the loop of one request. [`room`], [`extensions`]: the JSON.

mod connection;
mod connections;
mod extensions;
mod gather;
pub mod request;
pub mod required_state;
mod room;
mod room_list;
mod room_state;
mod session;

use std::sync::Arc;

use maru_protocol::cursor::SlidingToken;

pub(super) use connections::Connections;
pub use session::SlidingSession;

use self::request::SlidingRequest;
use super::{EventFilter, Filter, Session, Sync, SyncRequest};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::accounts::sync_connections::ConnectionName;

impl Sync {
    /// A session of a device for one request of sliding sync, which has everything up to `pos` on its connection (`None`: a
    /// new connection). What it acknowledges of messages to it is dropped.
    ///
    /// # Errors
    /// [`Refusal::UnknownPos`] when the connection is not known any more; when the database does not answer, or this node
    /// is far behind others.
    pub async fn sliding_session(
        &self,
        caller: Caller,
        pos: Option<SlidingToken>,
        request: SlidingRequest,
    ) -> Result<SlidingSession<'_>, Refusal> {
        if let Some(pos) = &pos
            && self.is_gone(&pos.since).await?
        {
            return Err(Refusal::UnknownPos);
        }
        let name = ConnectionName {
            user_id: caller.user_id.clone(),
            device_id: caller.device_id.clone(),
            conn_id: request.conn_id.clone(),
        };
        let remembered = self.connections.open(&self.store, &name, pos.as_ref()).await?;
        let to_device = request.extensions.to_device.as_ref();
        if let Some(since) = to_device.and_then(|wanted| wanted.since) {
            self.acknowledge(&caller, since).await?;
        }
        let wish = SyncRequest {
            filter: Arc::new(Filter {
                timeline: EventFilter {
                    limit: Some(request.most_timeline()),
                    ..EventFilter::default()
                },
                ..Filter::default()
            }),
            ..SyncRequest::default()
        };
        let session = Session::new(self, caller, pos.map(|pos| pos.since), wish);
        Ok(SlidingSession::new(
            self,
            session,
            name,
            request,
            (pos, remembered),
        ))
    }
}
