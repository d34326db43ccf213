//! Messages to devices (client-server API, "Send-to-Device messaging").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
