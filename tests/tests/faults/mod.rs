//! What goes wrong under a running server: it is killed, its database is, or the link to it goes dead, its disk fills up, it
//! is told to stop, its peer is killed, also while it fetches what it does not have, the network between them is bad.

mod bad_network;
mod database_killed;
mod disk_full;
mod fetching_cut_off;
mod killed;
mod link_dead;
mod media_in_a_bucket;
mod servers_killed;
mod stopping;
mod talk;
mod traffic;
