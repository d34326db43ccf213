//! The command line. Each subcommand is one file; all take the flags of the configuration.

mod configuration;
mod doctor;
mod key;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, ConfigError, Loaded, Sources};
use crate::data_folder::DataFolderError;

/// A homeserver for one organisation: chat over the Matrix client API.
#[derive(Debug, Parser)]
#[command(name = "maru", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check, show or document the configuration
    Config {
        #[command(subcommand)]
        action: configuration::Action,
    },
    /// Show the keys that are the server's identity
    Key {
        #[command(subcommand)]
        action: key::Action,
    },
    /// Check that a server can run here
    Doctor,
}

/// The flags that every subcommand takes. Values are read by the configuration, which also knows the defaults.
#[derive(Debug, Args)]
struct Flags {
    /// Configuration file, TOML
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of keys, database and media [default: maru-data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<String>,
    /// Name of the homeserver [default: the key name]
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
    /// Address of the client API [default: 127.0.0.1:8008]
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Address for other homeservers; kept for the version that has federation
    #[arg(long, global = true, value_name = "ADDR")]
    federation_listen: Option<String>,
    /// Address of the Prometheus metrics [default: none]
    #[arg(long, global = true, value_name = "ADDR")]
    metrics_listen: Option<String>,
    /// `sqlite` or a postgres:// URL [default: sqlite]
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// Who may register: open, token or closed [default: closed]
    #[arg(long, global = true, value_name = "WHO")]
    registration: Option<String>,
    /// Whether rates are limited: on or off [default: on]
    #[arg(long, global = true, value_name = "SWITCH")]
    rate_limits: Option<String>,
}

impl Flags {
    fn load(self) -> Result<Loaded, ConfigError> {
        let given = [
            ("data", self.data),
            ("server_name", self.server_name),
            ("listen", self.listen),
            ("federation_listen", self.federation_listen),
            ("metrics_listen", self.metrics_listen),
            ("database", self.database),
            ("registration", self.registration),
            ("rate_limits", self.rate_limits),
        ];
        let given: BTreeMap<_, _> = given
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        config::load(&Sources::of_process(self.config, given))
    }
}

/// Why a subcommand failed: one line for standard error, and the status of the process.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder cannot be used.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// 2 for what a change of the configuration mends, else 1.
    fn status(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    let CommandLine { command, flags } = CommandLine::parse();
    match execute(command, flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("maru: {failure}");
            failure.status()
        }
    }
}

fn execute(command: Command, flags: Flags) -> Result<(), Failure> {
    match command {
        Command::Config { action } => configuration::run(action, flags),
        Command::Key { action } => key::run(action, flags),
        Command::Doctor => doctor::run(flags),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_documented_flag_exists() {
        let command = CommandLine::command();
        for key in config::reference::FLAGS {
            let flag = key.replace('_', "-");
            assert!(
                doctor
                    .get_arguments()
                    .any(|argument| argument.get_long() == Some(flag.as_str())),
                "{flag}"
            );
        }
    }
}
