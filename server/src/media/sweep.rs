//! Removes the objects that a process which ended in the middle of an upload or a fetch, or lost its database there, has
//! left: whichever node it was.

use std::time::Duration;

use super::Media;
use super::storage::Arrival;
use crate::refusal::Refusal;

/// How long ago an object began to arrive before it is taken for left behind: an upload may pause for a minute.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects that are looked after in one round; the others wait for the next.
const TOGETHER: usize = 100;

impl Media {
    /// Removes objects that got their names and were never referred to, and those whose removal was cut off. Costs grow
    /// with these.
    ///
    /// # Errors
    /// When the storage or the database fails; what is left stays for the next time.
    pub async fn sweep(&self) -> Result<(), Refusal> {
        let now = self.now();
        let before = now.saturating_sub(i64::try_from(OLD.as_millis()).unwrap_or(i64::MAX));
        for object in self.tables.old_arrivals(before, TOGETHER).await? {
            let Some(arrival) = Arrival::read(&object) else {
                return Err(Refusal::internal(format!("{object} is the name of no object")));
            };
            let content = arrival.sha256();
            if self
                .tables
                .take_old_arrival(&object, content, before, now)
                .await?
            {
                self.remove(&arrival).await?;
            }
        }
        Ok(())
    }

    /// Removes an object that was marked as leaving, and whatever goes with it.
    pub(super) async fn remove(&self, arrival: &Arrival) -> Result<(), Refusal> {
        self.storage.remove(arrival.objects()).await?;
        Ok(self.tables.removed(vec![arrival.object().path()]).await?)
    }
}
