//! Root keys of domains, as their web servers publish them (`spec/federation.md`, "Keys and names").
//!
//! A domain is asked once: what it says is kept for good by the keyring, and that it said nothing for a while here. Those
//! who want the same answer at the same time wait for one request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use maru_protocol::key::PublicKey;
use maru_protocol::record::SignedRecord;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use crate::https_client::{HttpsClient, WebError};

/// Where a domain publishes its key.
const PATH: &str = "/.well-known/maru/server";

/// How long an answer is kept, above all that there was none.
const KEPT: Duration = Duration::from_secs(300);

/// Answers that are kept.
const MOST_KEPT: usize = 10_000;

/// Domains that are asked at the same time.
const AT_ONCE: usize = 16;

/// Domains that may be asked in a minute for those who connect from one address.
const PER_ADDRESS: u32 = 20;

/// The time that [`PER_ADDRESS`] counts in.
const MINUTE: Duration = Duration::from_secs(60);

/// What a domain says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::peers) struct Published {
    /// The key that signs its records.
    pub(in crate::peers) root_key: PublicKey,
    /// Its record, which says where it is. Not verified yet.
    pub(in crate::peers) record: Option<SignedRecord>,
}

/// Why the key of a domain is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LookUpError {
    /// Its web server could not be asked.
    #[error("its web server {0}")]
    HttpsClient(#[from] WebError),
    /// What it published is not what is asked for.
    #[error("it publishes no server key: {0}")]
    Malformed(String),
    /// Too many domains are asked for already.
    #[error("too many names are being looked up")]
    TooMany,
}

/// The document under [`PATH`].
#[derive(Deserialize)]
struct Document {
    root_key: String,
    record: Option<String>,
}

type Answer = Result<Published, LookUpError>;

/// One question, and when its answer came.
type Question = OnceCell<(Instant, Answer)>;

/// What domains have answered, and are being asked.
#[derive(Debug)]
pub(in crate::peers) struct WellKnown {
    web: HttpsClient,
    questions: Mutex<HashMap<OwnedServerName, Arc<Question>>>,
    permits: Semaphore,
    by_address: Mutex<AddressCounts>,
}

/// Look-ups for the sake of each address in the present minute.
#[derive(Debug)]
struct AddressCounts {
    since: Instant,
    counts: HashMap<IpAddr, u32>,
}

impl WellKnown {
    pub(in crate::peers) fn new(web: HttpsClient) -> Self {
        Self {
            web,
            questions: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
            by_address: Mutex::new(AddressCounts {
                since: Instant::now(),
                counts: HashMap::new(),
            }),
        }
    }

    /// What a domain publishes. `address` is that of the peer for whose sake it is asked; none for this server itself.
    pub(in crate::peers) async fn ask(&self, name: &ServerName, address: Option<IpAddr>) -> Answer {
        let question = self.question(name, address)?;
        let (_, answer) = question
            .get_or_init(async || {
                let _permit = self.permits.acquire().await;
                let answer = self.fetch(name).await;
                (Instant::now(), answer)
            })
            .await;
        answer.clone()
    }

    /// The question to a domain: one that is asked or answered already, else a new one.
    fn question(&self, name: &ServerName, address: Option<IpAddr>) -> Result<Arc<Question>, LookUpError> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = questions.get(name).filter(|question| is_fresh(question)) {
            return Ok(Arc::clone(question));
        }
        if questions.len() >= MOST_KEPT {
            questions.retain(|_, question| is_fresh(question));
        }
        let may_ask = address.is_none_or(|address| self.by_address().count(address));
        if questions.len() >= MOST_KEPT || !may_ask {
            return Err(LookUpError::TooMany);
        }
        let question = Arc::new(Question::new());
        questions.insert(name.to_owned(), Arc::clone(&question));
        Ok(question)
    }

    fn by_address(&self) -> MutexGuard<'_, AddressCounts> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, name: &ServerName) -> Answer {
        let document = self.web.get(name, PATH).await?;
        let malformed = |why: &dyn std::fmt::Display| LookUpError::Malformed(why.to_string());
        let document: Document = serde_json::from_slice(&document).map_err(|error| malformed(&error))?;
        let root_key = PublicKey::from_base64(&document.root_key).map_err(|error| malformed(&error))?;
        let record = document.record.map(|text| {
            let bytes = STANDARD_NO_PAD.decode(text).map_err(|error| malformed(&error))?;
            SignedRecord::from_bytes(&bytes).map_err(|error| malformed(&error))
        });
        Ok(Published {
            root_key,
            record: record.transpose()?,
        })
    }
}

impl AddressCounts {
    /// Counts one more question; false when it is one too many.
    fn count(&mut self, address: IpAddr) -> bool {
        if self.since.elapsed() >= MINUTE {
            self.since = Instant::now();
            self.counts.clear();
        }
        let count = self.counts.entry(address).or_default();
        *count += 1;
        *count <= PER_ADDRESS
    }
}

/// Whether a question is being asked, or was answered not long ago.
fn is_fresh(question: &Question) -> bool {
    question.get().is_none_or(|(at, _)| at.elapsed() < KEPT)
}
