//! Devices of the caller (client-server API, "Device Management").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
