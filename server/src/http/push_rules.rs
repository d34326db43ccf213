//! Push rules (client-server API, "Push Rules").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
