//! Moderation (client-server API, "Reporting Content").

pub(super) mod reporting;
