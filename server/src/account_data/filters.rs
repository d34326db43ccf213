//! Filters that clients store and then name in `/sync` and `/messages` (client-server API, "Filtering").

use ruma::UserId;

use super::ClientData;
use crate::refusal::Refusal;

/// Largest stored filter, in bytes.
const FILTER_BYTES: usize = 64 * 1024;

impl ClientData {
    /// Keeps a filter (JSON of a known shape) and returns its id.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`], or [`Refusal::ResourceLimitExceeded`] for too many filters.
    pub async fn keep_filter(&self, user_id: &UserId, json: String) -> Result<String, Refusal> {
        if json.len() > FILTER_BYTES {
            let why = format!("a filter has at most {FILTER_BYTES} bytes");
            return Err(Refusal::TooLarge(why));
        }
        let number = self.store.accounts.keep_filter(user_id, json).await?;
        number
            .map(|number| number.to_string())
            .ok_or_else(|| Refusal::ResourceLimitExceeded("you have too many filters".into()))
    }

    /// The JSON of a stored filter.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn filter(&self, user_id: &UserId, filter_id: &str) -> Result<String, Refusal> {
        let stored = match filter_id.parse() {
            Ok(number) => self.store.accounts.filter(user_id, number).await?,
            Err(_) => None,
        };
        stored.ok_or_else(|| Refusal::not_found("you have no filter of that id"))
    }
}
