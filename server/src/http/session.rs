//! Ending and renewing sessions (client-server API, "Logout" and "Refreshing access tokens").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
