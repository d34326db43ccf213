//! Documents that may be what somebody looks for, the newest first.

use std::collections::BTreeSet;
use std::time::Duration;

use maru_protocol::state::EventNid;

use super::{DocumentKey, SearchTables, Subject, room_mark, sender_mark, subject_mark};
use crate::store::StoreError;
use crate::store::engine::{Query, Readers, Row, query};

/// Rooms that are asked for by their marks. Where there are more, the index is read for all rooms.
const MARKED_ROOMS: usize = 64;

/// How long PostgreSQL may walk the documents for what it takes to be common.
const WALKING: Duration = Duration::from_millis(100);

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// In these rooms (rooms.nid).
    pub rooms: Vec<i64>,
    /// What these have sent; none for anybody. Others may be among them.
    pub senders: Option<Vec<String>>,
    /// In what of an event.
    pub subjects: BTreeSet<Subject>,
    /// Before this one.
    pub before: Option<DocumentKey>,
    /// Not before this one.
    pub from: Option<DocumentKey>,
}

/// What the index is asked for.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Tokens, all of which must be there.
    pub tokens: Vec<String>,
    /// For each of these, a token that begins so.
    pub beginnings: Vec<String>,
    /// Where to look.
    pub scope: Scope,
}

impl SearchTables {
    /// Up to `limit` documents that have what is asked for, the newest first; none where that takes longer than `patience`.
    /// Costs grow with the documents that have the rarest of the tokens.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn candidates(
        &self,
        asked: &Candidates,
        limit: usize,
        patience: Duration,
    ) -> Result<Option<Vec<DocumentKey>>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = match self.readers.is_sqlite() {
            true => asked.on_sqlite(limit).within(&self.readers, patience).await?,
            false => asked.in_time_on_postgres(limit, &self.readers, patience).await?,
        };
        let Some(rows) = rows else {
            return Ok(None);
        };
        let is_sqlite = self.readers.is_sqlite();
        let keys = rows.iter().map(|row| {
            let event = EventNid(row.get(1)?);
            Ok(match is_sqlite {
                true => DocumentKey::of_row(row.get(0)?, event),
                false => DocumentKey::from_parts(row.get(0)?, event),
            })
        });
        keys.collect::<Result<_, StoreError>>().map(Some)
    }
}

impl Candidates {
    /// What must be there: one of each of these alternatives.
    fn alternatives(&self) -> Vec<Vec<String>> {
        let scope = &self.scope;
        let mut all = Vec::new();
        if scope.rooms.len() <= MARKED_ROOMS {
            all.push(scope.rooms.iter().map(|room| room_mark(*room)).collect());
        }
        let senders = scope
            .senders
            .iter()
            .filter(|senders| senders.len() <= MARKED_ROOMS);
        all.extend(senders.map(|senders| senders.iter().map(|sender| sender_mark(sender)).collect()));
        if !scope.subjects.contains(&Subject::Body) {
            let marks = scope.subjects.iter().filter_map(|subject| subject_mark(*subject));
            all.push(marks.map(str::to_owned).collect());
        }
        all
    }

    /// Rooms that are looked at row by row: all where there are too many for their marks.
    fn listed_rooms(&self) -> Option<Vec<i64>> {
        (self.scope.rooms.len() > MARKED_ROOMS).then(|| self.scope.rooms.clone())
    }

    fn on_sqlite(&self, limit: i64) -> Query {
        let quoted = |token: &String| format!("\"{token}\"");
        let tokens = self.tokens.iter().map(quoted);
        let beginnings = self.beginnings.iter().map(|start| format!("\"{start}\" *"));
        let marks = self.alternatives().into_iter().map(|any| {
            let any: Vec<_> = any.iter().map(quoted).collect();
            format!("({})", any.join(" OR "))
        });
        let wanted: Vec<String> = tokens.chain(beginnings).chain(marks).collect();
        let before = self.scope.before.map_or(i64::MAX, DocumentKey::row);
        let from = self.scope.from.map_or(0, DocumentKey::row);
        let rooms = self.listed_rooms();
        let asked = query(match rooms {
            None => {
                "SELECT rowid, event FROM search_index WHERE search_index MATCH $1 AND rowid < $2 AND rowid >= $3 \
                 ORDER BY rowid DESC LIMIT $4"
            }
            Some(_) => {
                "SELECT rowid, event FROM search_index WHERE search_index MATCH $1 AND rowid < $2 AND rowid >= $3 \
                 AND room = ANY($5) ORDER BY rowid DESC LIMIT $4"
            }
        });
        let asked = asked
            .bind(wanted.join(" AND "))
            .bind(before)
            .bind(from)
            .bind(limit);
        rooms.into_iter().fold(asked, |asked, rooms| asked.bind(rooms))
    }

    /// PostgreSQL walks the documents from the newest where it takes what is looked for to be common. Where that turns out
    /// wrong, the index of words is asked all the same.
    async fn in_time_on_postgres(
        &self,
        limit: i64,
        readers: &Readers,
        patience: Duration,
    ) -> Result<Option<Vec<Row>>, StoreError> {
        let short = WALKING.min(patience);
        match self.on_postgres(limit, false).within(readers, short).await? {
            None => {
                self.on_postgres(limit, true)
                    .within(readers, patience - short)
                    .await
            }
            found => Ok(found),
        }
    }

    fn on_postgres(&self, limit: i64, by_word: bool) -> Query {
        let quoted = |token: &String| format!("'{token}'");
        let tokens = self.tokens.iter().map(quoted);
        let beginnings = self.beginnings.iter().map(|start| format!("'{start}':*"));
        let marks = self.alternatives().into_iter().map(|any| {
            let any: Vec<_> = any.iter().map(quoted).collect();
            format!("({})", any.join(" | "))
        });
        let wanted: Vec<String> = tokens.chain(beginnings).chain(marks).collect();
        let last = DocumentKey::from_parts(i64::MAX, EventNid(i64::MAX));
        let before = self.scope.before.unwrap_or(last);
        let from = self.scope.from.unwrap_or(DocumentKey::from_parts(0, EventNid(0)));
        let rooms = self.listed_rooms();
        // The sum keeps PostgreSQL off the index by time.
        let asked = query(match (&rooms, by_word) {
            (None, false) => {
                "SELECT sent_at, event FROM search_index WHERE words @@ $1::tsquery \
                 AND (sent_at, event) < ($2, $3) AND (sent_at, event) >= ($4, $5) \
                 ORDER BY sent_at DESC, event DESC LIMIT $6"
            }
            (None, true) => {
                "SELECT sent_at, event FROM search_index WHERE words @@ $1::tsquery \
                 AND (sent_at + 0, event) < ($2, $3) AND (sent_at + 0, event) >= ($4, $5) \
                 ORDER BY sent_at + 0 DESC, event DESC LIMIT $6"
            }
            (Some(_), false) => {
                "SELECT sent_at, event FROM search_index WHERE words @@ $1::tsquery \
                 AND (sent_at, event) < ($2, $3) AND (sent_at, event) >= ($4, $5) \
                 AND room = ANY($7) ORDER BY sent_at DESC, event DESC LIMIT $6"
            }
            (Some(_), true) => {
                "SELECT sent_at, event FROM search_index WHERE words @@ $1::tsquery \
                 AND (sent_at + 0, event) < ($2, $3) AND (sent_at + 0, event) >= ($4, $5) \
                 AND room = ANY($7) ORDER BY sent_at + 0 DESC, event DESC LIMIT $6"
            }
        });
        let asked = asked
            .bind(wanted.join(" & "))
            .bind(before.sent_at)
            .bind(before.event.0)
            .bind(from.sent_at)
            .bind(from.event.0)
            .bind(limit);
        rooms.into_iter().fold(asked, |asked, rooms| asked.bind(rooms))
    }
}
