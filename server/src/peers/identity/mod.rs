//! Which servers there are: their names, keys, records and addresses.

pub(super) mod address_book;
pub(super) mod address_lookup;
pub(super) mod admin_view;
pub(super) mod key_verification;
pub(super) mod keyring;
pub(super) mod own_record;
pub(super) mod well_known;
