//! Sync by long-poll (client-server API, "Syncing").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
