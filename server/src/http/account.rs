//! The caller's own account (client-server API, "Account management").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
