//! Typing notices (client-server API, "Typing Notifications").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
