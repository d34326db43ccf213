//! Sync: what a device has not seen yet.

use std::sync::Arc;

use crate::live::Hub;
use crate::rooms::Rooms;
use crate::store::Store;

/// Everything that sync needs to work.
#[derive(Debug)]
pub struct Sync {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    hub: Arc<Hub>,
}

impl Sync {
    /// Sync over the log.
    #[must_use]
    pub fn new(store: Arc<Store>, rooms: Arc<Rooms>, hub: Arc<Hub>) -> Self {
        Self { store, rooms, hub }
    }
}
