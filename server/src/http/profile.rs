//! Profiles (client-server API, "Profiles").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
