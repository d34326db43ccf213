//! Finding people (client-server API, "User Directory").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
