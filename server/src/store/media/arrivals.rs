//! Objects that have got their names, or are about to, while nothing may refer to them: table `media_arrivals`.
//!
//! An object is noted before it gets its name. Whatever refers to it ends that in the same transaction; who is cut off
//! before leaves a note by which the object is found later. One that nothing refers to is marked as leaving before it is
//! removed: nobody gives it its name again until that is done, whichever node removes it. Each step begins with a
//! statement that locks the object's row, so that what the next one sees is after everybody else's.

use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, query};
use crate::store::media::MediaTables;

/// Objects that are about to be removed.
static LEAVING: Insert = Insert {
    table: "media_arrivals",
    columns: &[
        ("object", Kind::Text),
        ("uploads", Kind::Int),
        ("leaving", Kind::Int),
        ("since", Kind::Int),
    ],
    on_conflict: "ON CONFLICT DO NOTHING",
};

/// Somebody refers to an object now.
pub(super) async fn end(connection: &mut Connection, object: &str) -> Result<(), StoreError> {
    query("UPDATE media_arrivals SET uploads = uploads - 1 WHERE object = $1")
        .bind(object)
        .run(&mut *connection)
        .await?;
    query("DELETE FROM media_arrivals WHERE object = $1 AND uploads <= 0 AND leaving = 0")
        .bind(object)
        .run(connection)
        .await
}

/// Nothing refers to these objects any more, and they are about to be removed.
pub(super) async fn leave(
    connection: &mut Connection,
    objects: impl IntoIterator<Item = String>,
    now: i64,
) -> Result<(), StoreError> {
    let rows = objects
        .into_iter()
        .map(|object| vec![object.into(), 0_i64.into(), 1_i64.into(), now.into()]);
    LEAVING.rows(connection, rows.collect()).await
}

/// Marks an object whose row is locked as leaving, unless somebody is about to refer to it, media have its content, or it
/// is being removed.
async fn take(
    connection: &mut Connection,
    object: &str,
    content: &[u8],
    now: i64,
) -> Result<bool, StoreError> {
    let taken = query(
        "UPDATE media_arrivals SET leaving = 1, since = $2 \
         WHERE object = $1 AND uploads <= 0 AND leaving = 0 AND NOT EXISTS (SELECT 1 FROM media WHERE sha256 = $3)",
    )
    .bind(object)
    .bind(now)
    .bind(content)
    .execute(&mut *connection)
    .await?
        > 0;
    if !taken {
        query("DELETE FROM media_arrivals WHERE object = $1 AND uploads <= 0 AND leaving = 0")
            .bind(object)
            .run(connection)
            .await?;
    }
    Ok(taken)
}

impl MediaTables {
    /// Notes that an object is about to get its name; false while it is being removed.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn begin_arrival(&self, object: &str, now: i64) -> Result<bool, StoreError> {
        let object = object.to_owned();
        self.log
            .transact_unlogged(move |tx| {
                Box::pin(async move {
                    let begun = query(
                        "INSERT INTO media_arrivals (object, uploads, leaving, since) VALUES ($1, 1, 0, $2) \
                         ON CONFLICT (object) DO UPDATE SET uploads = media_arrivals.uploads + 1, \
                         since = excluded.since WHERE media_arrivals.leaving = 0",
                    );
                    let begun = begun.bind(object).bind(now).execute(&mut tx.connection);
                    Ok(begun.await? > 0)
                })
            })
            .await
    }

    /// Whoever began an arrival does not refer to the object after all: whether it is to be removed now, and nobody else
    /// touches it meanwhile. `content` is its SHA-256, where media may have it.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn give_up_arrival(&self, object: &str, content: &[u8], now: i64) -> Result<bool, StoreError> {
        let (object, content) = (object.to_owned(), content.to_vec());
        self.log
            .transact_unlogged(move |tx| {
                Box::pin(async move {
                    query("UPDATE media_arrivals SET uploads = uploads - 1 WHERE object = $1")
                        .bind(&object)
                        .run(&mut tx.connection)
                        .await?;
                    take(&mut tx.connection, &object, &content, now).await
                })
            })
            .await
    }

    /// Objects that began to arrive, or to leave, before a time, the oldest first: at most `most`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn old_arrivals(&self, before: i64, most: usize) -> Result<Vec<String>, StoreError> {
        let rows = query("SELECT object FROM media_arrivals WHERE since < $1 ORDER BY since LIMIT $2");
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = rows.bind(before).bind(most).all(&self.readers).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Of an object that began to arrive, or to leave, before a time, whoever did that is gone: whether it is to be removed
    /// now, as [`MediaTables::give_up_arrival`] says.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn take_old_arrival(
        &self,
        object: &str,
        content: &[u8],
        before: i64,
        now: i64,
    ) -> Result<bool, StoreError> {
        let (object, content) = (object.to_owned(), content.to_vec());
        self.log
            .transact_unlogged(move |tx| {
                Box::pin(async move {
                    let old = query(
                        "UPDATE media_arrivals SET uploads = 0, leaving = 0 WHERE object = $1 AND since < $2",
                    );
                    let old = old.bind(&object).bind(before).execute(&mut tx.connection);
                    match old.await? {
                        0 => Ok(false),
                        _ => take(&mut tx.connection, &object, &content, now).await,
                    }
                })
            })
            .await
    }

    /// Objects that were leaving are gone.
    ///
    /// # Errors
    /// When it was not stored: they are looked after again later.
    pub async fn removed(&self, objects: Vec<String>) -> Result<(), StoreError> {
        self.log
            .transact_unlogged(move |tx| {
                Box::pin(async move {
                    query("DELETE FROM media_arrivals WHERE object = ANY($1) AND leaving = 1")
                        .bind(objects)
                        .run(&mut tx.connection)
                        .await
                })
            })
            .await
    }
}
