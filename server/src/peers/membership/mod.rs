//! Memberships that other servers take part in.
//!
//! - [`remote_join`]: join, knock and leave through a server in the room. [`make_membership`]: the event for them.
//! - [`invites`]: both ends of an invitation.
//! - [`room_resolution`]: aliases, and servers to join through. [`local_rooms`]: rooms of which there is a replica here.

pub(super) mod invites;
pub(super) mod local_rooms;
pub(super) mod make_membership;
pub(super) mod remote_join;
pub(super) mod room_resolution;

use crate::refusal::Refusal;
use crate::tasks::Tasks;

/// Does what other servers take part in to its end, also when whoever asked for it does not wait: what they have accepted is
/// not forgotten here.
pub(in crate::peers) async fn to_the_end<T: Send + 'static>(
    tasks: &Tasks,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tasks
        .finish("remote_membership", work)
        .await
        .map_err(Refusal::internal)?
}
