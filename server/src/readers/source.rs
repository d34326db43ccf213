//! Where readers read: the log, or what a test puts in its place.

use std::fmt;

use futures_util::future::BoxFuture;
use maru_protocol::cursor::Position;

use crate::store::StoreError;
use crate::store::log::{Committed, Log, LogPage, PageLimits, Record};

/// A log that can be followed.
pub trait LogSource: Send + Sync + fmt::Debug {
    /// The newest position that is known here.
    fn newest(&self) -> Position;

    /// What the log holds after a position, in order and within limits.
    ///
    /// # Errors
    /// [`StoreError::JournalDropped`] when it is not kept that far back; otherwise when it cannot be read.
    fn after(&self, position: Position, limits: PageLimits) -> BoxFuture<'_, Result<LogPage, StoreError>>;

    /// Waits until there is something after a position. May end early, and never may.
    fn moved_past(&self, position: Position) -> BoxFuture<'_, ()>;
}

impl LogSource for Log {
    fn newest(&self) -> Position {
        self.position()
    }

    fn after(&self, position: Position, limits: PageLimits) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        Box::pin(self.after(position, limits))
    }

    fn moved_past(&self, position: Position) -> BoxFuture<'_, ()> {
        Box::pin(self.moved_past(position))
    }
}

/// What kinds of records stand together, for people.
pub(super) fn describe(records: &[Committed]) -> String {
    let mut kinds: Vec<&str> = records.iter().map(|committed| kind(&committed.record)).collect();
    kinds.dedup();
    kinds.join(", ")
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Event(_) => "event",
        Record::Placed(_) => "place of an outlier",
        Record::Redaction(_) => "redaction",
        Record::Membership(_) => "membership",
        Record::Transaction(_) => "transaction id",
        Record::Notification(_) => "notification",
        Record::Interest(_) => "interest of a server",
        Record::Receipt(_) => "receipt",
        Record::AccountData(_) => "account data",
        Record::ToDevice(_) => "message to a device",
        Record::DeviceList(_) => "device list",
        Record::PeerMessage(_) => "message to a peer",
        _ => "other",
    }
}
