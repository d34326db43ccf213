//! The public directory (client-server API, "Published room directory").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
