//! Signals: SIGTERM and SIGINT stop the server, a second one cuts; SIGHUP reads the certificates again.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::http::transport::tls::Certificates;

/// Status of a process that a second signal cut, as shells report an interrupt.
const CUT: i32 = 130;

/// The signals that the server heeds.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from the system, whose own answer would be to end the process.
    pub(super) fn take() -> Result<Self, Failure> {
        let take =
            |kind| signal(kind).map_err(|error| Failure::Other(format!("cannot take signals: {error}")));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Heeds signals for as long as the process lives; cancels `stop` at the first that asks to end.
    pub(super) async fn heed(mut self, stop: CancellationToken, certificates: Option<Arc<Certificates>>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => end(&stop),
                _ = self.interrupt.recv() => end(&stop),
                _ = self.hang_up.recv() => reload(certificates.as_deref()),
            }
        }
    }
}

fn end(stop: &CancellationToken) {
    if stop.is_cancelled() {
        tracing::warn!("cut by a second signal");
        std::process::exit(CUT);
    }
    tracing::info!("stopping: waiting clients are sent away, requests in progress are finished");
    stop.cancel();
}

fn reload(certificates: Option<&Certificates>) {
    match certificates.map(Certificates::reload) {
        None => tracing::info!("no certificates to read again"),
        Some(Ok(())) => tracing::info!("certificates read again"),
        Some(Err(error)) => tracing::error!(%error, "the certificates stay as they are"),
    }
}
