//! What storage promises, checked on SQLite, on PostgreSQL and on the in-memory model.

mod contract;
mod costs;
mod engines;
mod for_peers;
mod housekeeping;
mod isolation;
mod jobs;
mod killed_jobs;
mod logs;
mod migrations;
mod nodes;
mod readers;
mod receiving;
mod running_jobs;
mod story;
mod tail;
