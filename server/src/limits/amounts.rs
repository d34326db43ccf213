//! Budgets in items, bytes and seconds that the configuration sets, each as one row.

use super::By;

/// A bound on how much of something there may be.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Its key in the configuration, where its default and meaning stand.
    pub key: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// Whose it is.
    pub by: By,
    /// What becomes of what goes over it.
    pub beyond: &'static str,
}

const fn amount(key: &'static str, unit: &'static str, by: By, beyond: &'static str) -> Amount {
    Amount {
        key,
        unit,
        by,
        beyond,
    }
}

/// All of them. Every key of the configuration's section `limits` has a row.
pub const AMOUNTS: &[Amount] = &[
    amount(
        "limits.message_characters",
        "characters",
        By::Request,
        "413 `M_TOO_LARGE`",
    ),
    amount(
        "limits.request_body_bytes",
        "bytes",
        By::Request,
        "413 `M_TOO_LARGE`",
    ),
    amount("limits.upload_bytes", "bytes", By::Request, "413 `M_TOO_LARGE`"),
    amount(
        "limits.uploads_per_user_bytes",
        "bytes",
        By::Account,
        "403 `M_FORBIDDEN`",
    ),
    amount(
        "limits.account_data_items",
        "pieces",
        By::Account,
        "413 `M_TOO_LARGE`",
    ),
    amount(
        "limits.account_data_bytes",
        "bytes",
        By::Account,
        "413 `M_TOO_LARGE`",
    ),
    amount(
        "limits.key_backup_keys",
        "keys",
        By::Account,
        "403 `M_RESOURCE_LIMIT_EXCEEDED`",
    ),
    amount(
        "limits.key_backup_bytes",
        "bytes",
        By::Account,
        "403 `M_RESOURCE_LIMIT_EXCEEDED`",
    ),
    amount(
        "limits.devices_per_user",
        "devices",
        By::Account,
        "403 `M_RESOURCE_LIMIT_EXCEEDED`",
    ),
    amount(
        "limits.password_characters",
        "characters",
        By::Account,
        "400 `M_WEAK_PASSWORD`, for fewer",
    ),
    amount(
        "limits.commit_changes",
        "changes",
        By::Server,
        "the next commit takes them",
    ),
    amount(
        "limits.commit_bytes",
        "bytes",
        By::Server,
        "the next commit takes them",
    ),
    amount(
        "limits.connections",
        "connections",
        By::Server,
        "waits to be accepted",
    ),
    amount(
        "limits.connections_per_address",
        "connections",
        By::Address,
        "429, and closed",
    ),
    amount("limits.request_head_seconds", "seconds", By::Connection, "closed"),
    amount(
        "limits.request_body_seconds",
        "seconds",
        By::Request,
        "408 `M_UNKNOWN`",
    ),
    amount(
        "limits.stranger_body_seconds",
        "seconds",
        By::Request,
        "408 `M_UNKNOWN`",
    ),
    amount("limits.stalled_seconds", "seconds", By::Connection, "closed"),
    amount("limits.drain_seconds", "seconds", By::Server, "cut off"),
    amount(
        "federation.backlog_events",
        "events",
        By::Peer,
        "told that events were skipped",
    ),
    amount(
        "federation.inbox_events",
        "events",
        By::Peer,
        "not acknowledged until there is room",
    ),
    amount(
        "federation.inbox_bytes",
        "bytes",
        By::Peer,
        "not acknowledged until there is room",
    ),
    amount(
        "federation.verdict_events",
        "events",
        By::Peer,
        "dropped and counted, and its homeserver heard slowly for a while",
    ),
    amount(
        "federation.media_cache_bytes",
        "bytes",
        By::Server,
        "the longest unused go",
    ),
    amount(
        "presence.offline_after_seconds",
        "seconds",
        By::Account,
        "offline",
    ),
];
