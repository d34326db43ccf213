//! What goes wrong under a running server: it is killed, its database is, its disk fills up, it is told to stop.

mod database_killed;
mod disk_full;
mod killed;
mod stopping;
mod traffic;
