//! Moving a room to another version (client-server API, "Room Upgrades").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
