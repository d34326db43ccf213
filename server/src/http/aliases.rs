//! Names of rooms (client-server API, "Room aliases").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
