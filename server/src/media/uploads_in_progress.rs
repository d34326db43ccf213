//! Uploads that are under way: one for each address, so many for each user, and how much they have brought.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ruma::{OwnedUserId, UserId};

use crate::refusal::Refusal;

/// Uploads of one user at the same time.
const UPLOADS_AT_ONCE: usize = 32;

/// How long somebody with too many is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// All uploads that are under way.
#[derive(Debug, Default)]
pub(super) struct Underway(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Media ids.
    addresses: HashSet<String>,
    users: HashMap<OwnedUserId, OfUser>,
}

#[derive(Debug, Default)]
struct OfUser {
    uploads: usize,
    bytes: u64,
}

/// An upload, until it is dropped.
#[derive(Debug)]
pub(super) struct Upload {
    underway: Arc<Underway>,
    media_id: String,
    user_id: OwnedUserId,
    /// Bytes that it brought.
    bytes: u64,
}

impl Underway {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// [`Refusal::CannotOverwriteMedia`] when one to the same address is under way, [`Refusal::LimitExceeded`] when too
    /// many of the user are.
    pub(super) fn begin(self: &Arc<Self>, user_id: &UserId, media_id: &str) -> Result<Upload, Refusal> {
        let mut state = self.state();
        let of_user = state.users.get(user_id);
        if of_user.is_some_and(|of_user| of_user.uploads >= UPLOADS_AT_ONCE) {
            return Err(Refusal::LimitExceeded {
                retry_after: RETRY_AFTER,
            });
        }
        if !state.addresses.insert(media_id.to_owned()) {
            return Err(Refusal::CannotOverwriteMedia);
        }
        state.users.entry(user_id.to_owned()).or_default().uploads += 1;
        drop(state);
        Ok(Upload {
            underway: Arc::clone(self),
            media_id: media_id.to_owned(),
            user_id: user_id.to_owned(),
            bytes: 0,
        })
    }
}

impl Upload {
    /// Counts bytes that it brings; false when it and the user's others that are under way bring more than `most`.
    pub(super) fn bring(&mut self, bytes: u64, most: u64) -> bool {
        let mut state = self.underway.state();
        let Some(of_user) = state.users.get_mut(&self.user_id) else {
            return false;
        };
        let fits = of_user.bytes.saturating_add(bytes) <= most;
        if fits {
            of_user.bytes += bytes;
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut state = self.underway.state();
        state.addresses.remove(&self.media_id);
        if let Some(of_user) = state.users.get_mut(&self.user_id) {
            of_user.uploads = of_user.uploads.saturating_sub(1);
            of_user.bytes = of_user.bytes.saturating_sub(self.bytes);
            if of_user.uploads == 0 {
                state.users.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use crate::media::uploads_in_progress::*;

    #[test]
    fn an_address_takes_one_upload_at_a_time_and_a_user_makes_so_many() {
        let underway = Arc::new(Underway::default());
        let (alice, bob) = (user_id!("@alice:x"), user_id!("@bob:x"));
        let first = underway.begin(alice, "first").unwrap();
        let again = underway.begin(alice, "first");
        assert!(matches!(again, Err(Refusal::CannotOverwriteMedia)));
        let begin = |n: usize| underway.begin(alice, &n.to_string());
        let uploads: Vec<_> = (1..UPLOADS_AT_ONCE).map(|n| begin(n).unwrap()).collect();
        assert!(matches!(begin(0), Err(Refusal::LimitExceeded { .. })));
        underway.begin(bob, "of bob").unwrap();
        drop(first);
        underway.begin(alice, "first").unwrap();
        drop(uploads);
        let state = underway.state();
        assert!(state.addresses.is_empty() && state.users.is_empty());
    }

    #[test]
    fn what_one_upload_brings_counts_for_the_others_until_it_ends() {
        let underway = Arc::new(Underway::default());
        let alice = user_id!("@alice:x");
        let mut first = underway.begin(alice, "first").unwrap();
        let mut second = underway.begin(alice, "second").unwrap();
        assert!(first.bring(6, 10) && second.bring(4, 10) && !second.bring(1, 10));
        drop(first);
        assert!(second.bring(6, 10) && !second.bring(1, 10));
    }
}
