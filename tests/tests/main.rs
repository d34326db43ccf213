//! The whole-system tests: one binary, so that everything is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where something cannot be"
)]

mod appservices;
mod faults;
mod federation;
mod flows;
mod garbage;
mod nodes;
mod oauth;
mod readers;
mod search;
mod sliding;
mod storage;
mod tidy;
