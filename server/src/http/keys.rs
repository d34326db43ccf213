//! Device keys and one-time keys (client-server API, "End-to-End Encryption").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
