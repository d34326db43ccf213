//! What can end a scenario early.

use crate::exactly_once::Discrepancy;

/// Why a scenario could not be finished or did not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The target is not on this machine: load is never sent elsewhere.
    #[error("{0}: only loopback addresses may be loaded")]
    NotLoopback(String),
    /// The command line asks for something that cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A socket or file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server does not speak HTTP or WebSocket as it should.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The server answered with a status that the scenario does not expect.
    #[error("{request} answered {status}: {body}")]
    Status {
        /// Method and path.
        request: String,
        /// The status code received.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// An answer or a whole scenario took longer than allowed.
    #[error("{0} took too long")]
    Timeout(String),
    /// An answer is not the JSON it should be.
    #[error("{what}: {source}")]
    Json {
        /// The answer that was read.
        what: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// Messages were lost, doubled or invented.
    #[error("{what}: {discrepancy}")]
    NotExactlyOnce {
        /// Where the messages were looked for.
        what: String,
        /// What is wrong with them.
        discrepancy: Discrepancy,
    },
    /// Something else that was checked does not hold.
    #[error("verification: {0}")]
    Verification(String),
}

impl LoadError {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Wraps a JSON error with what was being read.
    pub(crate) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Json { what, source }
    }
}
