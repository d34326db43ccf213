//! `maru config`: checks, shows and documents the configuration.

use clap::Subcommand;
use ruma::server_name;

use super::{Failure, Flags};
use crate::appservice_registrations::Registrations;
use crate::config::reference;
use crate::http::transport::tls::{Certificates, TlsFiles};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Say whether the configuration can be used
    Check,
    /// Print every value and where it comes from; passwords are hidden
    Show,
    /// Print the reference of all keys as a Markdown table
    Reference,
}

pub(super) fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    match action {
        Action::Check => check(flags),
        Action::Show => {
            say!("{}", reference::as_file(&flags.load()?).trim_end());
            Ok(())
        }
        Action::Reference => {
            say!("{}", reference::as_table().trim_end());
            Ok(())
        }
    }
}

fn check(flags: Flags) -> Result<(), Failure> {
    let loaded = flags.load()?;
    if let Some(files) = TlsFiles::configured(&loaded.config.tls) {
        Certificates::load(files).map_err(|error| Failure::Other(error.to_string()))?;
    }
    // Whatever the server will be called, who is registered is read in the same way.
    Registrations::load(&loaded.config.application_services, server_name!("localhost"))?;
    for variable in &loaded.unknown_variables {
        eprintln!("maru: the variable {variable} names no key");
    }
    say!("the configuration can be used");
    Ok(())
}
