//! Supervised tasks: whatever the server does beside the request at hand has a name, is counted, and has ended before the
//! store closes.
//!
//! Three ways to begin one. [`Tasks::finish`] is for what must come to its end although nobody waits: the store closes
//! only after it. [`Tasks::until_stop`] is for what goes on until the server stops, at whose next `await` it is dropped then.
//! [`Tasks::keep`] is the same for what can be begun anew: after a panic it is, with a growing pause.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::observe::metrics::TASKS;
use crate::observe::tasks::Running;

/// The pause before a task that panicked is begun anew: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The tasks of one server.
#[derive(Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No task yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Runs something to its end, whoever waits for it or not. It must be bounded in time. A panic goes to who waits.
    pub fn finish<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(async move {
            let running = TASKS.begin(name);
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(done) => done,
                Err(panic) => {
                    running.panicked();
                    std::panic::resume_unwind(panic)
                }
            }
        })
    }

    /// Runs something until it ends by itself or the server stops.
    pub fn until_stop(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let running = TASKS.begin(name);
            tokio::select! {
                () = stop.cancelled() => {}
                ended = AssertUnwindSafe(work).catch_unwind() => {
                    if let Err(panic) = ended {
                        note_panic(name, &running, &*panic);
                    }
                }
            }
        });
    }

    /// Runs something until it ends by itself or the server stops, and begins it anew when it panics.
    pub fn keep<F>(&self, name: &'static str, begin: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.until_stop(name, async move {
            let mut pause = PAUSE.0;
            loop {
                let begun = Instant::now();
                let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await else {
                    return;
                };
                let counted = TASKS.of(name);
                counted.panicked();
                counted.restarted();
                log_panic(name, &*panic);
                if begun.elapsed() > PAUSE.1 {
                    pause = PAUSE.0;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        });
    }

    /// Is cancelled when the server stops: for what ends by itself, in order.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Has what goes on end, without waiting for it.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Has everything end and waits for it, no longer than `grace`. Whether everything has ended.
    pub async fn close(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        let ended = tokio::time::timeout(grace, self.tracker.wait()).await.is_ok();
        if !ended {
            let left = self.tracker.len();
            tracing::warn!(left, "tasks have not ended in time, and are left behind");
        }
        ended
    }
}

fn note_panic(name: &'static str, running: &Running, panic: &(dyn Any + Send)) {
    running.panicked();
    log_panic(name, panic);
}

fn log_panic(name: &'static str, panic: &(dyn Any + Send)) {
    tracing::error!(task = name, why = panic_text(panic), "a task panicked");
}

/// What a panic says.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_must_be_finished_is_waited_for_and_what_goes_on_is_not() {
        let tasks = Tasks::new();
        let (go, wait) = oneshot::channel::<()>();
        let (told, done) = oneshot::channel();
        tasks.until_stop("test_endless", std::future::pending());
        drop(tasks.finish("test_short", async move {
            let _ = wait.await;
            let _ = told.send(());
        }));
        assert!(!tasks.close(Duration::from_millis(10)).await, "one still works");
        go.send(()).unwrap();
        assert!(tasks.close(Duration::from_secs(10)).await);
        done.await.unwrap();
    }

    #[tokio::test]
    async fn what_panics_is_counted_and_begun_anew() {
        let tasks = Tasks::new();
        let begun = Arc::new(AtomicU32::new(0));
        let (told, mut done) = tokio::sync::mpsc::channel(1);
        let count = Arc::clone(&begun);
        tasks.keep("test_panics", move || {
            let (count, told) = (count.fetch_add(1, Ordering::Relaxed), told.clone());
            async move {
                assert!(count == 2, "on purpose");
                told.send(()).await.unwrap();
            }
        });
        done.recv().await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        assert!(tasks.close(Duration::from_secs(10)).await);
        let counted = TASKS.of("test_panics").counts();
        assert_eq!(counted, [0, 2, 2], "running, panics, restarts");
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_a_panic() {
        let tasks = Tasks::new();
        let waited = tasks.finish("test_waited", async { panic!("on purpose") }).await;
        assert!(waited.is_err_and(|error: tokio::task::JoinError| error.is_panic()));
        assert_eq!(TASKS.of("test_waited").counts(), [0, 1, 0]);
    }
}
