//! Peers that speak the protocol and lie, against a whole server: what they say is refused with its reason and counted,
//! and everybody else goes on.
//!
//! - [`liar`]: a peer of whom everything can be made up. [`foothold`]: its way into a room, so that its lies are looked at.
//! - [`records`]: who it claims to be. [`certificate`]: whose certificate it shows. [`frames`]: bytes that are no protocol.
//!   [`events`]: events that are not what they claim. [`items`]: messages and receipts that are not. [`cursors`]: places in
//!   logs. [`requests`]: what it may not ask.
//! - [`resident`]: what it answers of a [`room`] that it has made. [`returning`]: what it does to a server that comes back
//!   into one. [`past`]: what it tells of the time before. [`stalling`]: what it never tells.
//! - [`floods`]: too much of everything, with an honest peer beside it and both the latency and the memory measured.

mod certificate;
mod cursors;
mod events;
mod floods;
mod foothold;
mod frames;
mod items;
mod liar;
mod past;
mod records;
mod requests;
mod resident;
mod returning;
mod room;
mod stalling;
