//! What users keep and tell: account data, filters, push rules, receipts, typing, presence.

pub(super) mod account_data;
pub(super) mod filters;
pub(super) mod presence;
pub(super) mod push_rules;
pub(super) mod receipts;
pub(super) mod typing;
