//! Several nodes on one PostgreSQL: each serves any client, and all of them see one log.

mod one_log;
