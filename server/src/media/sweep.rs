//! Removes what a process that ended in the middle of an upload or a fetch, or lost its database there, has left on the
//! disk.

use std::time::{Duration, SystemTime};

use super::Media;
use super::files::{self, Leftover, Unnoted};
use crate::refusal::Refusal;

/// How long a file lies unchanged before it is taken for left behind: an upload may pause for a minute.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Files that are looked after in one round; the others wait for the next.
const TOGETHER: usize = 100;

impl Media {
    /// Removes unfinished files that nobody writes any more, and those that were given a name and never noted. Costs grow
    /// with the uploads and fetches under way.
    ///
    /// # Errors
    /// When the folder or the database cannot be read; what is left stays for the next time.
    pub async fn sweep(&self) -> Result<(), Refusal> {
        let before = SystemTime::now()
            .checked_sub(OLD)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let leftovers = self.files.leftovers(before, TOGETHER).await;
        for leftover in leftovers.map_err(files::refusal)? {
            match leftover {
                Leftover::Unfinished(path) => drop(tokio::fs::remove_file(path).await),
                // It can be fetched again.
                Leftover::Unnoted(unnoted @ Unnoted::Cached(address)) => {
                    self.files.remove_cached(&address).await;
                    self.files.noted(unnoted).await;
                }
                Leftover::Unnoted(Unnoted::Content(sha256)) => {
                    let _turn = self.settling.acquire(sha256).await.map_err(Refusal::internal)?;
                    self.remove_unless_noted(&sha256).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes the file of a content that nothing refers to. To be called by who has the turn at it.
    pub(super) async fn remove_unless_noted(&self, sha256: &[u8; 32]) -> Result<(), Refusal> {
        if !self.tables.has_content(sha256).await? {
            self.files.remove_content(sha256).await;
        }
        self.files.noted(Unnoted::Content(*sha256)).await;
        Ok(())
    }
}
