//! The reader of the log of one service: each part of the log that holds something for it becomes a transaction, and the cursor
//! moves on when that is accepted.
//!
//! A service that is away holds up nobody else: its reader alone waits, and tries again for as long as it takes. Nothing is
//! left out for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use maru_protocol::cursor::Position;
use tokio::sync::Mutex;

use super::interest::Interest;
use super::outbox::{Outbox, unavailable};
use super::service::Service;
use super::{Sources, reader_name, transaction};
use crate::readers::actions::Tuning;
use crate::readers::{Begins, Reader, ReaderError};
use crate::store::appservices::Accepted;
use crate::store::log::{Committed, Record};
use crate::store::readers::Effects;

/// Positions of the log that one transaction is made of at most.
const POSITIONS: usize = 100;

/// Bytes of events that one transaction is made of at most, but for a single event that has more.
const BYTES: usize = 512 * 1024;

/// How long after a page the next one is read, so that a transaction holds what is said at once.
const LINGER: Duration = Duration::from_millis(20);

/// The longest pause before a service that is away is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The reader of one service.
pub(super) struct ServiceReader {
    name: String,
    service: Arc<Service>,
    sources: Sources,
    turn: Mutex<Turn>,
}

/// What is held while something is sent to the service: one thing at a time.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) interest: Interest,
    pub(super) outbox: Outbox,
}

impl fmt::Debug for ServiceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceReader({})", self.name)
    }
}

impl ServiceReader {
    pub(super) fn new(service: &Arc<Service>, sources: Sources) -> Self {
        let tables = Arc::clone(&sources.store.appservices);
        let outbox = Outbox::new(Arc::clone(service), tables, sources.store.log.id());
        Self {
            name: reader_name(&service.registration.id),
            turn: Mutex::new(Turn {
                interest: Interest::new(Arc::clone(&service.registration)),
                outbox,
            }),
            service: Arc::clone(service),
            sources,
        }
    }

    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    pub(super) fn turn(&self) -> &Mutex<Turn> {
        &self.turn
    }

    /// Sends what these records hold for the service, in one transaction or none, and what was begun before.
    async fn deal_with(&self, records: &[Committed]) -> Result<Effects, ReaderError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(Effects::none());
        };
        let mut turn = self.turn.lock().await;
        let Turn { interest, outbox } = &mut *turn;
        outbox.settle().await?;
        // What stands in a transaction that was accepted before the cursor was stored is not sent once more.
        let before = Position(first.position.0 - 1);
        let sent_up_to = outbox.holds(first.position).unwrap_or(before);
        interest
            .prepare(&self.sources, records)
            .await
            .map_err(unavailable)?;
        let picks = interest.walk(&self.sources, records, sent_up_to);
        let received = self.received(interest, records);
        let body = transaction::body(&self.sources, &self.service.registration, picks).await;
        if let Some(body) = body.map_err(unavailable)? {
            outbox.send(sent_up_to, last.position, body).await?;
        }
        let is_sent = outbox.holds(last.position).is_some() || sent_up_to > before;
        let sequence = outbox.passed(last.position).filter(|_| is_sent);
        Ok(Effects::none().and_accepted(Accepted {
            service: self.service.registration.id.clone(),
            sequence,
            received,
        }))
    }

    /// Messages among these records that devices of the service's users have received with the transaction. Where the service
    /// has not said that it reads them there, they stay for the devices to sync.
    fn received(
        &self,
        interest: &Interest,
        records: &[Committed],
    ) -> Vec<(ruma::OwnedUserId, String, Position)> {
        if !self.service.registration.encrypts {
            return Vec::new();
        }
        let received = records.iter().filter_map(|committed| match &committed.record {
            Record::ToDevice(message) if interest.takes_message(message) => Some((
                message.user_id.clone(),
                message.device_id.clone(),
                committed.position,
            )),
            _ => None,
        });
        received.collect()
    }
}

impl Reader for ServiceReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn begins(&self) -> Begins {
        Begins::AtEnd
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            positions: POSITIONS,
            bytes: BYTES,
            linger: LINGER,
            longest_pause: LONGEST_PAUSE,
            ..Tuning::default()
        }
    }

    fn handle<'r>(
        &'r self,
        _shard: u32,
        records: &'r [Committed],
    ) -> BoxFuture<'r, Result<Effects, ReaderError>> {
        Box::pin(self.deal_with(records))
    }
}
