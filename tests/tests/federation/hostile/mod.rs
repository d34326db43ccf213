//! Peers that speak the protocol and lie, against a whole server: what they say is refused with its reason and counted,
//! and everybody else goes on.
//!
//! - [`liar`]: a peer of whom everything can be made up. [`foothold`]: its way into a room, so that its lies are looked at.
//! - [`records`]: who it claims to be. [`frames`]: bytes that are no protocol. [`events`]: events that are not what they
//!   claim. [`items`]: messages and receipts that are not. [`cursors`]: places in logs. [`requests`]: what it may not ask. [`resident`]: what it answers.
//! - [`floods`]: too much of everything, with an honest peer beside it and both the latency and the memory measured.

mod cursors;
mod events;
mod floods;
mod foothold;
mod frames;
mod items;
mod liar;
mod records;
mod requests;
mod resident;
