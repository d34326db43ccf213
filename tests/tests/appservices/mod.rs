//! Application services: what they are sent, whom they may act as, what they are asked, and what befalls them.

mod acting;
mod encryption;
mod failing;
mod passing;
mod questions;
mod transactions;
mod two_nodes;

use maru_tests::{Engine, TestAppservice, TestServer};
use tempfile::TempDir;

/// A server that knows these services, each with further lines of registration; and the folder of the registrations.
async fn server_with(engine: Engine, services: &[(&TestAppservice, &str)]) -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (service, further) in services {
        let _ = service.register_in(folder.path(), further);
    }
    let path = folder.path().to_owned();
    let server = TestServer::start_with(engine, |config| config.application_services = vec![path]).await;
    (server, folder)
}
