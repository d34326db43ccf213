//! Presence (client-server API, "Presence").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
