//! What the whole-system tests share: servers to test, users to drive them with, databases to run them on.
//!
//! [`TestServer`] is the real server in this process, without ports unless it is told to listen; [`TestProcess`] is the real binary, to be
//! killed and restarted. Both make [`User`]s, who speak the client API. `on_both_engines!` runs a test on SQLite and
//! on PostgreSQL.
//!
//! ```ignore
//! on_both_engines!(a_message_arrives);
//!
//! async fn a_message_arrives(server: TestServer) {
//!     let [alice, bob] = [server.user("alice").await, server.user("bob").await];
//!     let room = alice.create_room(json!({ "preset": "public_chat" })).await;
//!     bob.join(&room).await;
//!     let event = alice.send(&room, "hello").await;
//!     assert!(bob.sync(None).await.timeline(&room).contains(&event));
//! }
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where something cannot be"
)]

pub mod api;
pub mod appservice;
pub mod backup;
pub mod chance;
pub mod engine;
pub mod federation;
pub mod fuzz;
pub mod model;
pub mod nats;
pub mod object_storage;
pub mod picture;
pub mod postgres;
pub mod process;
pub mod relay;
pub mod server;
pub mod site;
pub mod tcp_relay;
pub mod user;
pub mod waiting;
pub mod web;
pub mod websocket;

pub use api::{Api, Reply};
pub use appservice::TestAppservice;
pub use backup::Backup;
pub use engine::{Data, Engine};
pub use federation::{federate, reunite};
pub use object_storage::ObjectStorage;
pub use process::TestProcess;
pub use relay::{Relay, Weather};
pub use server::{Listening, TestServer};
pub use site::{Site, two_sites};
pub use user::{Synced, User};
pub use websocket::Socket;
