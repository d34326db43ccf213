//! Children of an event (client-server API, "Forming relationships between events").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
