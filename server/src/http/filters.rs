//! Stored filters (client-server API, "Filtering").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
