//! The past of a room, from before this server had it.

use std::sync::Arc;

use maru_protocol::cursor::Place;

use super::{Incoming, Taken};
use crate::refusal::Refusal;
use crate::rooms::{Room, Rooms};
use crate::store::log::{Change, Record};

impl Rooms {
    /// Takes in backfilled events, oldest first, each with its state worked out from those before it. They are placed
    /// before the earliest event in the order in which they happened. Answers whether any was new.
    ///
    /// Those whose ancestors are neither here nor among them are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_in_past(&self, room: &Arc<Room>, incoming: Vec<Incoming>) -> Result<bool, Refusal> {
        // Places count down from the earliest, so room is made for all of them first and filled upwards.
        let count = i64::try_from(incoming.len()).unwrap_or(i64::MAX);
        let first = {
            let lock = room.lock();
            let mut head = (**lock.head()).clone();
            let first = Place(head.first_place.0.min(1) - count);
            head.first_place = first;
            let change = Change::from(Record::Head(head.clone())).on_head(lock.ticket());
            let pending = self.store.enqueue(change)?;
            lock.advance(Arc::new(head));
            drop(pending);
            first
        };
        let places = (first.0..).map(|at| Some(Place(at)));
        let taken = self
            .take_in_at(room, incoming.into_iter().zip(places).collect())
            .await?;
        Ok(taken.iter().any(|taken| matches!(taken, Taken::Stored(_))))
    }
}
