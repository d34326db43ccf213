//! `maru key`: who the server of a data folder is.

use clap::Subcommand;

use super::{Failure, Flags};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_folder::{DataFolder, DataFolderError, Keys};

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Print name and public keys of the data folder's server; keys are made if there are none
    Show,
    /// Make another signing key; what the present one has signed stays good. No server may run on the folder
    Rotate,
}

pub(super) fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let config = flags.load()?.config;
    match action {
        Action::Show => show(&Keys::load_or_make(&config.data)?, &config),
        Action::Rotate => {
            let mut folder = DataFolder::open(&config.data).map_err(while_stopped)?;
            show(folder.rotate_signing_key(Clock::System.now_ms())?, &config)
        }
    }
}

/// A running server has its signing key in memory, so it is asked to stop first.
fn while_stopped(error: DataFolderError) -> Failure {
    match error {
        DataFolderError::InUse(_) => Failure::Other(format!("{error}: stop the server first")),
        error => error.into(),
    }
}

fn show(keys: &Keys, config: &Config) -> Result<(), Failure> {
    say!(
        "server name: {}",
        keys.server_name(config.server_name.as_deref())?
    );
    say!("root key: {}", keys.root.public_key());
    say!("signing key: {} {}", keys.signing.id, keys.signing.public_key());
    for old in &keys.old_signing {
        let until = old.valid_until.unwrap_or_default();
        say!("old signing key: {} {}, good until {until}", old.id, old.key);
    }
    say!("tls key: {}", keys.tls.public_key());
    Ok(())
}
