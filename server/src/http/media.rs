//! Media (client-server API, "Content repository").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
