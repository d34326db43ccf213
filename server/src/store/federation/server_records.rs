//! Server records of this and other servers, with those they replaced.

use ruma::{OwnedServerName, ServerName};

use crate::store::StoreError;
use crate::store::engine::query;
use crate::store::federation::FederationTables;
use crate::store::log::Record;

/// A signed server record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Whose it is.
    pub server_name: OwnedServerName,
    /// The root key that signed it.
    pub root_key: [u8; 32],
    /// Its sequence number, which grows for one root key.
    pub sequence: u64,
    /// The record with its signature, as it came.
    pub record: Vec<u8>,
}

impl FederationTables {
    /// All records of all servers, oldest first of each root key. Costs grow with the servers that were ever met.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn server_records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        let rows = query(
            "SELECT server_name, root_key, sequence, record FROM server_records \
             ORDER BY server_name, root_key, sequence",
        );
        rows.all(&self.readers)
            .await?
            .iter()
            .map(|row| {
                let name = row.get::<String>(0)?.try_into();
                Ok(StoredRecord {
                    server_name: name.map_err(|error| StoreError::corrupt("server_records", error))?,
                    root_key: key_of(&row.get::<Vec<u8>>(1)?, "server_records")?,
                    sequence: row.get::<i64>(2)?.unsigned_abs(),
                    record: row.get(3)?,
                })
            })
            .collect()
    }

    /// Keeps a record; one with the same key and number stays as it is.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn keep_server_record(&self, record: StoredRecord) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    tx.push(Record::KnownServer(record.server_name.clone()));
                    query(
                        "INSERT INTO server_records (server_name, root_key, sequence, record) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (server_name, root_key, sequence) DO NOTHING",
                    )
                    .bind(record.server_name.as_str())
                    .bind(&record.root_key[..])
                    .bind(i64::try_from(record.sequence).unwrap_or(i64::MAX))
                    .bind(record.record)
                    .run(&mut tx.connection)
                    .await
                })
            })
            .await
    }

    /// The records of one server, oldest first of each root key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn records_of_server(&self, name: &ServerName) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows =
            query("SELECT record FROM server_records WHERE server_name = $1 ORDER BY root_key, sequence");
        let rows = rows.bind(name.as_str()).all(&self.readers).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Whether a server was ever met.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn has_record_of(&self, server_name: &ServerName) -> Result<bool, StoreError> {
        let row =
            query("SELECT 1 FROM server_records WHERE server_name = $1 LIMIT 1").bind(server_name.as_str());
        Ok(row.optional(&self.readers).await?.is_some())
    }
}

/// A key as a column holds it.
pub(in crate::store) fn key_of(bytes: &[u8], table: &'static str) -> Result<[u8; 32], StoreError> {
    let key = bytes.try_into();
    key.map_err(|_| StoreError::corrupt(table, "a key has not 32 bytes"))
}
