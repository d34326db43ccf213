//! Reports of events, rooms and users: table `reports`.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::store::StoreError;
use crate::store::engine::{Row, query};
use crate::store::moderation::ModerationTables;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub reporter: OwnedUserId,
    /// What is reported.
    pub subject: Subject,
    /// Why, in the reporter's words; may be empty.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub reported_at: i64,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An event of a room.
    Event(OwnedRoomId, OwnedEventId),
    /// A room.
    Room(OwnedRoomId),
    /// A user.
    User(OwnedUserId),
}

impl Subject {
    /// Room, event and user as the columns hold them.
    fn columns(&self) -> [Option<String>; 3] {
        match self {
            Self::Event(room_id, event_id) => [Some(room_id.to_string()), Some(event_id.to_string()), None],
            Self::Room(room_id) => [Some(room_id.to_string()), None, None],
            Self::User(user_id) => [None, None, Some(user_id.to_string())],
        }
    }
}

/// A report as it is read back.
#[derive(Clone, Debug)]
pub struct StoredReport {
    /// Its number.
    pub id: i64,
    /// The report.
    pub report: Report,
}

fn read(row: &Row) -> Result<StoredReport, StoreError> {
    let bad = |error: ruma::IdParseError| StoreError::corrupt("reports", error);
    let room_id: Option<String> = row.get(2)?;
    let event_id: Option<String> = row.get(3)?;
    let user_id: Option<String> = row.get(4)?;
    let subject = match (room_id, event_id, user_id) {
        (Some(room_id), Some(event_id), _) => Subject::Event(
            room_id.try_into().map_err(bad)?,
            event_id.try_into().map_err(bad)?,
        ),
        (Some(room_id), None, _) => Subject::Room(room_id.try_into().map_err(bad)?),
        (None, _, Some(user_id)) => Subject::User(user_id.try_into().map_err(bad)?),
        (None, _, None) => return Err(StoreError::corrupt("reports", "a report about nothing")),
    };
    Ok(StoredReport {
        id: row.get(0)?,
        report: Report {
            reporter: row.get::<String>(1)?.try_into().map_err(bad)?,
            subject,
            reason: row.get(5)?,
            reported_at: row.get(6)?,
        },
    })
}

impl ModerationTables {
    /// Keeps a report, and returns its number; none when its reporter has `most` that nobody has dealt with.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn add_report(&self, report: Report, most: i64) -> Result<Option<i64>, StoreError> {
        let added = self.log.transact(move |tx| {
            Box::pin(async move {
                let reporter = report.reporter.as_str();
                let last_allowed = query("SELECT id FROM reports WHERE reporter = $1 LIMIT 1 OFFSET $2");
                let last_allowed = last_allowed.bind(reporter).bind(most - 1);
                if last_allowed.optional(&mut tx.connection).await?.is_some() {
                    return Ok(None);
                }
                let last = query("SELECT CAST(COALESCE(MAX(id), 0) AS BIGINT) FROM reports");
                let last = last.optional(&mut tx.connection).await?;
                let id = last.map_or(Ok(0), |row| row.get::<i64>(0))? + 1;
                let [room_id, event_id, user_id] = report.subject.columns();
                query(
                    "INSERT INTO reports (id, reporter, room_id, event_id, user_id, reason, reported_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(id)
                .bind(reporter)
                .bind(room_id)
                .bind(event_id)
                .bind(user_id)
                .bind(&report.reason)
                .bind(report.reported_at)
                .run(&mut tx.connection)
                .await?;
                Ok(Some(id))
            })
        });
        added.await
    }

    /// Reports after a number, oldest first, up to `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn reports_after(&self, id: i64, limit: i64) -> Result<Vec<StoredReport>, StoreError> {
        let rows = query(
            "SELECT id, reporter, room_id, event_id, user_id, reason, reported_at FROM reports \
             WHERE id > $1 ORDER BY id LIMIT $2",
        );
        let rows = rows.bind(id).bind(limit).all(&self.readers).await?;
        rows.iter().map(read).collect()
    }

    /// Removes a report that has been dealt with; false when there is none.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_report(&self, id: i64) -> Result<bool, StoreError> {
        let dropped = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let delete = query("DELETE FROM reports WHERE id = $1").bind(id);
                Ok(delete.execute(&mut tx.connection).await? > 0)
            })
        });
        dropped.await
    }
}
