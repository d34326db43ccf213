//! Stored filters: JSON that a client sends once and then names by a number.

use ruma::UserId;

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::query;

/// Filters of one user; the number of a further one is none.
const FILTERS_PER_USER: i64 = 1000;

impl AccountTables {
    /// Keeps a filter and returns its number; a filter that the user has already keeps the number it has. `None` when
    /// the user has as many filters as are allowed.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn keep_filter(&self, user_id: &UserId, json: String) -> Result<Option<i64>, StoreError> {
        let user_id = user_id.to_string();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let known = query("SELECT filter_id FROM filters WHERE user_id = $1 AND json = $2")
                        .bind(&user_id)
                        .bind(&json)
                        .optional(&mut tx.connection)
                        .await?;
                    if let Some(row) = known {
                        return row.get(0).map(Some);
                    }
                    let highest = query("SELECT COALESCE(MAX(filter_id), 0) FROM filters WHERE user_id = $1")
                        .bind(&user_id)
                        .optional(&mut tx.connection)
                        .await?;
                    let number = highest.map_or(Ok(0), |row| row.get::<i64>(0))? + 1;
                    if number > FILTERS_PER_USER {
                        return Ok(None);
                    }
                    query("INSERT INTO filters (user_id, filter_id, json) VALUES ($1, $2, $3)")
                        .bind(&user_id)
                        .bind(number)
                        .bind(&json)
                        .run(&mut tx.connection)
                        .await?;
                    Ok(Some(number))
                })
            })
            .await
    }

    /// A user's filter by its number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn filter(&self, user_id: &UserId, number: i64) -> Result<Option<String>, StoreError> {
        let row = query("SELECT json FROM filters WHERE user_id = $1 AND filter_id = $2")
            .bind(user_id.as_str())
            .bind(number);
        row.optional(&self.readers)
            .await?
            .map(|row| row.get(0))
            .transpose()
    }
}
