//! Private settings and tags (client-server API, "Client Config" and "Room Tagging").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
