//! Reading a room's history (client-server API, "Getting events for a room").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
