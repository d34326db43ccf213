//! Application services (Application Service API): what each is sent of the log, in transactions, and what it is asked.
//!
//! What they ask goes through the client API like everything else, by their tokens (`accounts/services.rs`). Who they are is
//! read once (`appservice_registrations/`).
//!
//! | file | what |
//! |---|---|
//! | `reader.rs` | the reader of the log of one service |
//! | `interest.rs` | which events a service has to do with |
//! | `transaction.rs` | what a transaction holds |
//! | `outbox.rs` | transactions, one after the other, until each is accepted |
//! | `passing.rs` | who types and who is present, which no log holds |
//! | `service.rs` | requests to one service |
//! | `queries.rs` | users and aliases that nobody has here yet |
//! | `third_party.rs` | the networks that services know |
//! | this file | all services |

mod interest;
mod outbox;
mod passing;
mod queries;
mod reader;
mod service;
mod third_party;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use crate::appservice_registrations::{Registration, Registrations};
use crate::ephemeral::{Presence, Typing};
use crate::https_client::ServiceClient;
use crate::identity::Identity;
use crate::live::Notifier;
use crate::nodes::Nodes;
use crate::readers::Reader;
use crate::refusal::Refusal;
use crate::rooms::Rooms;
use crate::store::readers::ReaderId;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
use passing::Passing;
use queries::Unknown;
use reader::ServiceReader;
use service::Service;
pub use third_party::ThirdParty;

/// What the names of the readers of services begin with.
const READER: &str = "appservice/";

/// What application services need of the rest.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Who this server is.
    pub identity: Arc<Identity>,
    /// The database.
    pub store: Arc<Store>,
    /// Rooms.
    pub rooms: Arc<Rooms>,
    /// Who is told of what passes.
    pub notifier: Arc<Notifier>,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Who is present.
    pub presence: Arc<Presence>,
}

/// All application services.
#[derive(Debug)]
pub struct Appservices {
    registrations: Arc<Registrations>,
    sources: Sources,
    /// Those that listen.
    services: Vec<Arc<Service>>,
    readers: Vec<Arc<ServiceReader>>,
    unknown: Unknown,
}

impl Appservices {
    /// The services of these registrations.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(registrations: Arc<Registrations>, sources: Sources) -> Result<Arc<Self>, Refusal> {
        let client = ServiceClient::new().map_err(Refusal::internal)?;
        let services = registrations.iter();
        let services = services
            .filter_map(|service| Service::new(service, &client))
            .map(Arc::new);
        let services: Vec<Arc<Service>> = services.collect();
        let readers = services.iter();
        let readers = readers.map(|service| Arc::new(ServiceReader::new(service, sources.clone())));
        Ok(Arc::new(Self {
            readers: readers.collect(),
            registrations,
            sources,
            services,
            unknown: Unknown::default(),
        }))
    }

    /// The readers of the log, one for each service that listens.
    pub fn readers(&self) -> impl Iterator<Item = Arc<dyn Reader>> {
        let readers = self.readers.iter();
        readers.map(|reader| Arc::clone(reader) as Arc<dyn Reader>)
    }

    /// Forgets where the readers of services stand that are not registered any more: they would hold the log for ever.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_others(&self) -> Result<(), StoreError> {
        let tables = &self.sources.store.readers;
        for stored in tables.all().await? {
            let name = &stored.id.name;
            let is_known = self.readers.iter().any(|reader| reader.name() == &**name);
            if name.starts_with(READER) && !is_known {
                tables.forget(name).await?;
            }
        }
        Ok(())
    }

    /// Has what comes from now on be for the services that are new, also while no node leads their readers yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(&self, now: i64) -> Result<(), StoreError> {
        let tables = &self.sources.store.readers;
        for reader in &self.readers {
            let id = ReaderId {
                name: reader.name().into(),
                shard: 0,
            };
            tables
                .open(&id, self.sources.store.log.position(), None, now)
                .await?;
        }
        Ok(())
    }

    /// Begins to tell services what passes, each where this node leads its reader, until the server stops.
    pub fn tell_passing(&self, nodes: &Nodes, tasks: &Tasks) {
        for reader in &self.readers {
            if reader.service().registration.ephemeral.is_wanted() {
                // The only shard of the reader.
                let lease = nodes.want(&format!("reader/{}/0", reader.name()));
                let passing = Passing::new(Arc::clone(reader), self.sources.clone());
                tasks.until_stop("appservice_passing", passing.tell(lease));
            }
        }
    }

    /// All registrations, each with the name of the reader by which the service is sent transactions, if it is.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<Registration>, Option<String>)> {
        self.registrations.iter().map(|registration| {
            let listens = registration.url.is_some();
            (registration, listens.then(|| reader_name(&registration.id)))
        })
    }

    /// Asks a service whether it is there: how long that took.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when `id` is not that of the service, [`Refusal::UrlNotSet`], or why there was no good answer.
    pub async fn ping(
        &self,
        registration: &Registration,
        id: &str,
        transaction_id: Option<String>,
    ) -> Result<Duration, Refusal> {
        if registration.id != id {
            return Err(Refusal::forbidden("this is another application service"));
        }
        let mut services = self.services.iter();
        let service = services.find(|service| *service.registration == *registration);
        service.ok_or(Refusal::UrlNotSet)?.ping(transaction_id).await
    }
}

/// The name of the reader of a service.
#[must_use]
pub fn reader_name(id: &str) -> String {
    format!("{READER}{id}")
}
