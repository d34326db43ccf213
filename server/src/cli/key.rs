//! `maru key`: who the server of a data folder is.

use clap::Subcommand;

use super::{Failure, Flags};
use crate::data_folder::Keys;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Print name and public keys of the data folder's server; keys are made if there are none
    Show,
}

pub(super) fn run(Action::Show: Action, flags: Flags) -> Result<(), Failure> {
    let config = flags.load()?.config;
    let keys = Keys::load_or_make(&config.data)?;
    say!(
        "server name: {}",
        keys.server_name(config.server_name.as_deref())?
    );
    say!("root key: {}", keys.root.public_key());
    say!("signing key: {} {}", keys.signing.id, keys.signing.public_key());
    Ok(())
}
