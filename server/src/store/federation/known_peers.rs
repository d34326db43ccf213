//! What the admin, or a domain's web server, has said of peers: where they are, and which root keys are theirs.

use ruma::{OwnedServerName, ServerName};

use super::server_records::key_of;
use crate::store::StoreError;
use crate::store::engine::query;
use crate::store::federation::FederationTables;
use crate::store::log::Record;

impl FederationTables {
    /// Peers that the admin has added, with their addresses as they were given.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn added_peers(&self) -> Result<Vec<(OwnedServerName, Vec<String>)>, StoreError> {
        let rows = query("SELECT server_name, addresses FROM added_peers ORDER BY server_name");
        rows.all(&self.readers)
            .await?
            .iter()
            .map(|row| {
                let name = row.get::<String>(0)?.try_into();
                let addresses: String = row.get(1)?;
                Ok((
                    name.map_err(|error| StoreError::corrupt("added_peers", error))?,
                    addresses.split_whitespace().map(str::to_owned).collect(),
                ))
            })
            .collect()
    }

    /// The addresses of one peer that the admin has added, as they were given; none where it was not added.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn addresses_of_added(&self, name: &ServerName) -> Result<Option<Vec<String>>, StoreError> {
        let row = query("SELECT addresses FROM added_peers WHERE server_name = $1").bind(name.as_str());
        let row = row.optional(&self.readers).await?;
        let addresses: Option<String> = row.map(|row| row.get(0)).transpose()?;
        Ok(addresses.map(|texts| texts.split_whitespace().map(str::to_owned).collect()))
    }

    /// The root key of one domain.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn root_key_of(&self, name: &ServerName) -> Result<Option<[u8; 32]>, StoreError> {
        let row = query("SELECT root_key FROM root_keys WHERE server_name = $1").bind(name.as_str());
        let row = row.optional(&self.readers).await?;
        row.map(|row| key_of(&row.get::<Vec<u8>>(0)?, "root_keys"))
            .transpose()
    }

    /// Keeps a peer with its addresses, none of which holds a space; in the place of what was kept of it.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn add_peer(&self, name: &ServerName, addresses: &[String]) -> Result<(), StoreError> {
        let (name, addresses) = (name.to_owned(), addresses.join(" "));
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    tx.push(Record::KnownServer(name.clone()));
                    query(
                        "INSERT INTO added_peers (server_name, addresses) VALUES ($1, $2) \
                     ON CONFLICT (server_name) DO UPDATE SET addresses = excluded.addresses",
                    )
                    .bind(name.as_str())
                    .bind(addresses)
                    .run(&mut tx.connection)
                    .await
                })
            })
            .await
    }

    /// Forgets a peer that was added; false when it was not.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn remove_peer(&self, name: &ServerName) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    tx.push(Record::KnownServer(name.clone()));
                    let removed = query("DELETE FROM added_peers WHERE server_name = $1").bind(name.as_str());
                    Ok(removed.execute(&mut tx.connection).await? > 0)
                })
            })
            .await
    }

    /// The root keys of domains.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn root_keys(&self) -> Result<Vec<(OwnedServerName, [u8; 32])>, StoreError> {
        let rows = query("SELECT server_name, root_key FROM root_keys");
        rows.all(&self.readers)
            .await?
            .iter()
            .map(|row| {
                let name = row.get::<String>(0)?.try_into();
                let key = key_of(&row.get::<Vec<u8>>(1)?, "root_keys")?;
                Ok((
                    name.map_err(|error| StoreError::corrupt("root_keys", error))?,
                    key,
                ))
            })
            .collect()
    }

    /// Keeps the root key of a domain, in the place of another one.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_root_key(&self, name: &ServerName, root_key: [u8; 32]) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    tx.push(Record::KnownServer(name.clone()));
                    query(
                        "INSERT INTO root_keys (server_name, root_key) VALUES ($1, $2) \
                     ON CONFLICT (server_name) DO UPDATE SET root_key = excluded.root_key",
                    )
                    .bind(name.as_str())
                    .bind(&root_key[..])
                    .run(&mut tx.connection)
                    .await
                })
            })
            .await
    }
}
