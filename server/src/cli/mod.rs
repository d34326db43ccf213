//! The command line. Each subcommand is one file; all take the flags of the configuration.

/// Writes a line to standard output. Whoever reads it may have gone, which is no reason to stop.
macro_rules! say {
    ($($line:tt)+) => {{
        let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{}\n", format_args!($($line)+)).as_bytes());
    }};
}

mod admin;
mod appservice;
mod backup;
mod configuration;
mod demo;
mod doctor;
mod federation;
mod job;
mod key;
mod node;
mod peer;
mod readers;
mod report;
mod running;
mod serve;
mod signals;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::appservice_registrations::RegistrationError;
use crate::backup::BackupError;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Loaded, Sources};
use crate::data_folder::{DataFolder, DataFolderError};
use crate::http::transport::tls::TlsError;
use crate::identity::Identity;
use crate::server::{OpenError, Server};
use crate::store::{Database, StoreError};

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
    /// Run the server
    Serve,
    /// Run two homeservers that talk to each other, to look at; their data go when it ends unless `--data` names a folder
    Demo(demo::Options),
    /// Check, show or document the configuration
    Config {
        #[command(subcommand)]
        action: configuration::Action,
    },
    /// Make, change and list accounts
    User {
        #[command(subcommand)]
        action: admin::UserAction,
    },
    /// Make registration tokens
    Token {
        #[command(subcommand)]
        action: admin::TokenAction,
    },
    /// Show the keys that are the server's identity
    Key {
        #[command(subcommand)]
        action: key::Action,
    },
    /// Show other homeservers, add them, remove them, and say which key is theirs
    Peer {
        #[command(subcommand)]
        action: peer::Action,
    },
    /// Show durable jobs, try them again and drop them
    Job {
        #[command(subcommand)]
        action: job::Action,
    },
    /// Show what follows the log by itself, pause it, resume it, rewind it
    Readers {
        #[command(subcommand)]
        action: readers::Action,
    },
    /// Show what users have reported, and remove what has been dealt with
    Report {
        #[command(subcommand)]
        action: report::Action,
    },
    /// Show the processes that serve this homeserver, and have one drain
    Node {
        #[command(subcommand)]
        action: node::Action,
    },
    /// Show application services: bridges and bots
    Appservice {
        #[command(subcommand)]
        action: appservice::Action,
    },
    /// Copy a server's database, media and keys into a new folder; the server may run
    Backup {
        /// The folder to make
        into: PathBuf,
    },
    /// Bring a backup back into an empty data folder
    Restore {
        /// The backup's folder
        from: PathBuf,
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
    /// Address for other homeservers, UDP [default: no federation]
    #[arg(long, global = true, value_name = "ADDR")]
    federation_listen: Option<String>,
    /// Address of the Prometheus metrics [default: none]
    #[arg(long, global = true, value_name = "ADDR")]
    metrics_listen: Option<String>,
    /// `sqlite` or a postgres:// URL [default: sqlite]
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// Name of this process among those that serve one homeserver [default: main]
    #[arg(long, global = true, value_name = "NAME")]
    node_name: Option<String>,
    /// Address for the other nodes of this homeserver, UDP [default: none]
    #[arg(long, global = true, value_name = "ADDR")]
    node_listen: Option<String>,
    /// NATS servers by which nodes tell each other what is new [default: none; PostgreSQL carries it]
    #[arg(long, global = true, value_name = "URLS")]
    nats: Option<String>,
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
            ("node_name", self.node_name),
            ("node_listen", self.node_listen),
            ("nats", self.nats),
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
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] TlsError),
    /// The registration of an application service cannot be used.
    #[error("{0} (`application_services`)")]
    ApplicationService(#[from] RegistrationError),
    /// The database cannot be opened.
    #[error("cannot open the database {0}: {1}")]
    Database(config::Database, StoreError),
    /// A backup or restore did not happen.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// 2 for what a change of the configuration mends, else 1.
    fn status(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::ApplicationService(_) => ExitCode::from(2),
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
        Command::Serve => wait(serve::run(flags.load()?)),
        Command::Demo(options) => wait(demo::run(options, flags)),
        Command::Config { action } => configuration::run(action, flags),
        Command::User { action } => wait(admin::user(action, flags)),
        Command::Token { action } => wait(admin::token(action, flags)),
        Command::Key { action } => key::run(action, flags),
        Command::Peer { action } => wait(peer::run(action, flags)),
        Command::Job { action } => wait(job::run(action, flags)),
        Command::Report { action } => wait(report::run(action, flags)),
        Command::Readers { action } => wait(readers::run(action, flags)),
        Command::Node { action } => wait(node::run(action, flags)),
        Command::Appservice { action } => wait(appservice::run(action, flags)),
        Command::Backup { into } => wait(backup::back_up(&into, flags)),
        Command::Restore { from } => wait(backup::restore(&from, flags)),
        Command::Doctor => wait(doctor::run(flags)),
    }
}

/// Runs what waits for sockets and databases.
fn wait<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime
        .map_err(|error| Failure::Other(format!("cannot start threads: {error}")))?
        .block_on(work)
}

/// Opens the server of a data folder. Nothing listens yet.
async fn open_server(folder: &DataFolder, config: &Config) -> Result<Arc<Server>, Failure> {
    let keys = folder.keys();
    let identity = Identity {
        server_name: keys.server_name(config.server_name.as_deref())?,
        signing_key: keys.signing.clone(),
    };
    let failed = |error| Failure::Database(config.database.clone(), error);
    // Boxed: opening a server holds much.
    let opening = Box::pin(Server::open(
        config.clone(),
        database(config),
        identity,
        Clock::System,
    ));
    let server = opening.await.map_err(|error| match error {
        OpenError::Database(error) => failed(error),
        error @ (OpenError::MediaStorage(_) | OpenError::Nats(_)) => Failure::Other(error.to_string()),
        OpenError::ApplicationService(error) => Failure::ApplicationService(error),
    })?;
    let user = server
        .store
        .accounts
        .users_after("", 1)
        .await
        .map_err(failed)?
        .into_iter()
        .next();
    match user.filter(|user| !server.identity.is_local(&user.user_id)) {
        None => Ok(server),
        Some(stranger) => {
            server.close().await;
            let (found, name) = (stranger.user_id.server_name(), server.identity.name());
            Err(Failure::Other(format!(
                "the database belongs to the server {found}, this one is {name}"
            )))
        }
    }
}

/// The configured database.
fn database(config: &Config) -> Database {
    match &config.database {
        config::Database::Sqlite => Database::Sqlite(DataFolder::database_in(&config.data)),
        config::Database::Postgres(url) => Database::Postgres(url.clone()),
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
                command
                    .get_arguments()
                    .any(|argument| argument.get_long() == Some(flag.as_str())),
                "{flag}"
            );
        }
    }
}
