//! Readers of the log and the nodes that lead them: simulated by seed, and running on real stores.

mod commands;
mod database;
mod running;
mod simulation;
