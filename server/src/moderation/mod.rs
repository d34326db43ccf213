//! Moderation: what users report to the admin (client-server API, "Reporting Content").

use std::sync::Arc;

use ruma::{EventId, OwnedUserId, RoomId, UserId};

use crate::clock::Clock;
use crate::peers::FederatedHistory;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::Store;
use crate::store::moderation::reports::{Report, Subject};

/// Reports of one user that the admin has not dealt with; more are refused.
const OPEN_REPORTS: i64 = 500;

/// Longest reason of a report, in bytes.
const REASON_BYTES: usize = 4_096;

/// Takes reports.
#[derive(Debug)]
pub struct Moderation {
    store: Arc<Store>,
    rooms: Arc<Rooms>,
    history: Arc<FederatedHistory>,
    clock: Arc<Clock>,
}

impl Moderation {
    /// Moderation over a store.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        rooms: Arc<Rooms>,
        history: Arc<FederatedHistory>,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            store,
            rooms,
            history,
            clock,
        }
    }

    /// Reports an event that the reporter may see.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for any other; [`Refusal::TooLarge`] for too long a reason, and
    /// [`Refusal::ResourceLimitExceeded`] for too many reports.
    pub async fn report_event(
        &self,
        reporter: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
        reason: String,
    ) -> Result<(), Refusal> {
        let missing = |_| Refusal::not_found("there is no such event, or you may not see it");
        let room = self
            .rooms
            .repository
            .room_to_read(room_id)
            .await
            .map_err(missing)?;
        self.history.event(reporter, &room, event_id).await?;
        self.keep(
            reporter,
            Subject::Event(room_id.to_owned(), event_id.to_owned()),
            reason,
        )
        .await
    }

    /// Reports a room that the reporter was ever invited to or in, or may look at from outside.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for any other; else as [`Moderation::report_event`].
    pub async fn report_room(
        &self,
        reporter: &UserId,
        room_id: &RoomId,
        reason: String,
    ) -> Result<(), Refusal> {
        let missing = || Refusal::not_found("there is no such room, or you may not see it");
        let stored = self.store.rooms.room(room_id).await?.ok_or_else(missing)?;
        let membership = self.store.rooms.membership(stored.nid, reporter).await?;
        if membership.is_none() {
            let room = self
                .rooms
                .repository
                .room_by_nid(stored.nid)
                .await?
                .ok_or_else(missing)?;
            if !self.rooms.previews.may_preview(&room, Some(reporter)).await? {
                return Err(missing());
            }
        }
        self.keep(reporter, Subject::Room(room_id.to_owned()), reason)
            .await
    }

    /// Reports a user, of whatever server. Whether there is one of that name is not told.
    ///
    /// # Errors
    /// As [`Moderation::report_event`], whoever is reported.
    pub async fn report_user(
        &self,
        reporter: &UserId,
        user_id: OwnedUserId,
        reason: String,
    ) -> Result<(), Refusal> {
        self.keep(reporter, Subject::User(user_id), reason).await
    }

    async fn keep(&self, reporter: &UserId, subject: Subject, reason: String) -> Result<(), Refusal> {
        if reason.len() > REASON_BYTES {
            return Err(Refusal::TooLarge(format!(
                "a reason has up to {REASON_BYTES} bytes"
            )));
        }
        if reason.contains('\0') {
            return Err(Refusal::invalid("the reason contains a NUL character"));
        }
        let report = Report {
            reporter: reporter.to_owned(),
            subject,
            reason,
            reported_at: i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX),
        };
        let kept = self.store.moderation.add_report(report, OPEN_REPORTS).await?;
        let id = kept.ok_or_else(|| {
            Refusal::ResourceLimitExceeded("the admin has yet to look at many reports of yours".into())
        })?;
        tracing::warn!(id, "somebody has reported something: `maru report list` shows it");
        Ok(())
    }
}
