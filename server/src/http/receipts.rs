//! Receipts and read markers (client-server API, "Receipts").

use super::router::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
}
