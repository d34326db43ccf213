//! Homeservers that share rooms.

mod rooms;
