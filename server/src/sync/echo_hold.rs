//! What a device is sending: it hears of its own event by sync only after its request was answered.
//!
//! A client shows a message at once and learns its id from the answer. One that hears of the event before that has two
//! messages to deal with, and some clients fail at it. So a device that is being answered reads the log no further than to
//! where it stood when the request came. Nobody else waits, the user's other devices neither.
//!
//! A request is answered when its response has been handed to the connection, which writes it before it does anything
//! else. What the device asks for once it has the answer is never held back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maru_protocol::cursor::Position;
use ruma::OwnedUserId;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::accounts::Caller;
use crate::live::{Notifier, UserInbox};

/// The longest that a device is held back by one request.
const LONGEST: Duration = Duration::from_secs(2);

/// The requests to send that have not been answered.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// How many there are: mostly none, and then nobody looks further.
    count: AtomicUsize,
    by_user: Mutex<HashMap<OwnedUserId, Vec<Arc<Request>>>>,
}

/// One of them.
#[derive(Debug)]
struct Request {
    device_id: String,
    /// Where the log stood when it came.
    came_at: Position,
    /// When the device is held back no longer.
    until: Instant,
    /// Whether the device was held back by it.
    held: AtomicBool,
}

/// How a device is held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// How far it may read the log.
    pub(super) position: Position,
    /// For how long at most.
    pub(super) until: Instant,
}

impl Unanswered {
    /// How a device is held back now, if it is. To be asked after the log's position was read: whose event is within that
    /// has been noted here.
    pub(super) fn hold(&self, caller: &Caller) -> Option<Hold> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let by_user = self.lock();
        let requests = by_user.get(&caller.user_id)?;
        let now = Instant::now();
        let holding = requests
            .iter()
            .filter(|request| request.device_id == caller.device_id && request.until > now);
        let holding = holding.inspect(|request| request.held.store(true, Ordering::Relaxed));
        holding
            .map(|request| Hold {
                position: request.came_at,
                until: request.until,
            })
            .min_by_key(|hold| hold.position)
    }

    /// Waits until a device was answered all that it sent before a position: at most as long as it is held back. What
    /// wakes its user's inbox has it look again.
    pub(super) async fn answered_before(&self, caller: &Caller, position: Position, inbox: &UserInbox) {
        loop {
            let changed = inbox.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.hold(caller) {
                Some(hold) if hold.position < position => {
                    drop(Box::pin(timeout_at(hold.until, changed)).await);
                }
                _ => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedUserId, Vec<Arc<Request>>>> {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request to send, until it has been answered: it goes with the response, and whoever drops that has dealt with it.
#[derive(Clone, Debug)]
pub struct Sending(#[expect(dead_code, reason = "held for what its end does")] Arc<Noted>);

#[derive(Debug)]
struct Noted {
    unanswered: Arc<Unanswered>,
    notifier: Arc<Notifier>,
    user_id: OwnedUserId,
    request: Arc<Request>,
}

impl Sending {
    /// Notes that a device begins to send.
    pub(super) fn begin(unanswered: &Arc<Unanswered>, notifier: &Arc<Notifier>, caller: &Caller) -> Self {
        let request = Arc::new(Request {
            device_id: caller.device_id.clone(),
            came_at: notifier.position(),
            until: Instant::now() + LONGEST,
            held: AtomicBool::new(false),
        });
        let user_id = caller.user_id.clone();
        unanswered.count.fetch_add(1, Ordering::AcqRel);
        let mut by_user = unanswered.lock();
        by_user
            .entry(user_id.clone())
            .or_default()
            .push(Arc::clone(&request));
        drop(by_user);
        Self(Arc::new(Noted {
            unanswered: Arc::clone(unanswered),
            notifier: Arc::clone(notifier),
            user_id,
            request,
        }))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut by_user = self.unanswered.lock();
        if let Some(requests) = by_user.get_mut(&self.user_id) {
            requests.retain(|request| !Arc::ptr_eq(request, &self.request));
            if requests.is_empty() {
                by_user.remove(&self.user_id);
            }
        }
        drop(by_user);
        self.unanswered.count.fetch_sub(1, Ordering::AcqRel);
        if self.request.held.load(Ordering::Relaxed) {
            let (notifier, user_id) = (Arc::clone(&self.notifier), self.user_id.clone());
            let wake = async move { notifier.wake(&user_id) };
            // After the connection that writes the answer now, which is the task that drops this.
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(wake)),
                Err(_) => self.notifier.wake(&self.user_id),
            }
        }
    }
}
