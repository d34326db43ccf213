//! Reading a room's state and members (client-server API, "Getting events for a room").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
