//! Documents come into the index and go.

use std::collections::HashSet;

use maru_protocol::state::EventNid;
use ruma::OwnedUserId;

use super::{DocumentKey, SearchTables, Subject, room_mark, sender_mark, subject_mark};
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, query};

/// An event in the index.
#[derive(Clone, Debug)]
pub struct Document {
    /// Which event, and where it stands.
    pub key: DocumentKey,
    /// Its room (rooms.nid).
    pub room: i64,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// What of it is searched.
    pub subject: Subject,
    /// The tokens of its text, without spaces.
    pub tokens: Vec<String>,
}

/// What is to be changed in the index. The same change again makes no difference.
#[derive(Clone, Debug, Default)]
pub struct IndexChange {
    /// Documents that come, in the place of those of the same events. No event twice.
    pub documents: Vec<Document>,
    /// Documents that go, if they are there.
    pub gone: Vec<DocumentKey>,
    /// Edits and the events that they edit.
    pub edits: Vec<(EventNid, EventNid)>,
}

static INSERT_SQLITE: Insert = Insert {
    table: "search_index",
    columns: &[
        ("rowid", Kind::Int),
        ("words", Kind::Text),
        ("event", Kind::Int),
        ("room", Kind::Int),
    ],
    on_conflict: "",
};

static INSERT_EDITS: Insert = Insert {
    table: "search_edits",
    columns: &[("edit", Kind::Int), ("event", Kind::Int)],
    on_conflict: "ON CONFLICT (edit) DO NOTHING",
};

impl Document {
    /// Its tokens and marks, as one text.
    fn words(&self) -> String {
        let mut words = room_mark(self.room);
        let marks = [sender_mark(self.sender.as_str())];
        let subject = subject_mark(self.subject).into_iter();
        let rest = marks.iter().map(String::as_str).chain(subject);
        for word in rest.chain(self.tokens.iter().map(String::as_str)) {
            words.push(' ');
            words.push_str(word);
        }
        words
    }
}

impl IndexChange {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.gone.is_empty() && self.edits.is_empty()
    }

    /// Changes the index, within a transaction of whoever calls. At most four statements.
    pub(in crate::store) async fn apply(self, connection: &mut Connection) -> Result<(), StoreError> {
        match connection.is_sqlite() {
            true => self.apply_to_sqlite(connection).await,
            false => self.apply_to_postgres(connection).await,
        }
    }

    async fn apply_to_sqlite(self, connection: &mut Connection) -> Result<(), StoreError> {
        let replaced = self.documents.iter().map(|document| document.key);
        let gone: Vec<i64> = replaced.chain(self.gone).map(DocumentKey::row).collect();
        if !gone.is_empty() {
            let delete = query("DELETE FROM search_index WHERE rowid = ANY($1)").bind(gone);
            delete.run(connection).await?;
        }
        // Two events have the same row in one case among very many: the first is found then.
        let mut rows = HashSet::new();
        let documents = self
            .documents
            .iter()
            .filter(|document| rows.insert(document.key.row()));
        let documents = documents.map(|document| {
            vec![
                document.key.row().into(),
                document.words().into(),
                document.key.event.0.into(),
                document.room.into(),
            ]
        });
        INSERT_SQLITE.rows(connection, documents.collect()).await?;
        store_edits(connection, &self.edits).await
    }

    async fn apply_to_postgres(self, connection: &mut Connection) -> Result<(), StoreError> {
        if !self.gone.is_empty() {
            let gone: Vec<i64> = self.gone.iter().map(|key| key.event.0).collect();
            let delete = query("DELETE FROM search_index WHERE event = ANY($1)").bind(gone);
            delete.run(connection).await?;
        }
        if !self.documents.is_empty() {
            let numbers =
                |number: fn(&Document) -> i64| self.documents.iter().map(number).collect::<Vec<_>>();
            let insert = query(
                "INSERT INTO search_index (event, room, sent_at, words) \
                 SELECT event, room, sent_at, array_to_tsvector(string_to_array(words, ' ')) \
                 FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS new (event, room, sent_at, words) \
                 ON CONFLICT (event) DO UPDATE SET words = excluded.words",
            );
            let insert = insert
                .bind(numbers(|document| document.key.event.0))
                .bind(numbers(|document| document.room))
                .bind(numbers(|document| document.key.sent_at));
            let words: Vec<String> = self.documents.iter().map(Document::words).collect();
            insert.bind(words).run(connection).await?;
        }
        store_edits(connection, &self.edits).await
    }
}

async fn store_edits(connection: &mut Connection, edits: &[(EventNid, EventNid)]) -> Result<(), StoreError> {
    let rows = edits
        .iter()
        .map(|(edit, event)| vec![edit.0.into(), event.0.into()]);
    INSERT_EDITS.rows(connection, rows.collect()).await
}

impl SearchTables {
    /// The events that some edits edit, edits whose content is gone included.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn edited_by(&self, edits: &[EventNid]) -> Result<Vec<EventNid>, StoreError> {
        let edits: Vec<i64> = edits.iter().map(|nid| nid.0).collect();
        let rows = query("SELECT DISTINCT event FROM search_edits WHERE edit = ANY($1)").bind(edits);
        let rows = rows.all(&self.readers).await?;
        rows.iter().map(|row| Ok(EventNid(row.get(0)?))).collect()
    }

    /// Empties the index, for a server that does not search. Costs grow with the index, nothing where it is empty.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn clear(&self) -> Result<(), StoreError> {
        let row = query("SELECT 1 FROM search_index LIMIT 1")
            .optional(&self.readers)
            .await?;
        if row.is_none() {
            return Ok(());
        }
        let work = self.log.transact_unlogged(|tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                let clear = match connection.is_sqlite() {
                    true => "INSERT INTO search_index (search_index) VALUES ('delete-all')",
                    false => "TRUNCATE search_index",
                };
                query(clear).run(connection).await?;
                query("DELETE FROM search_edits").run(connection).await
            })
        });
        work.await
    }
}
