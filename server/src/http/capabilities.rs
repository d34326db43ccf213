//! What this server can do (client-server API, "Capabilities negotiation" and "Server Discovery").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
