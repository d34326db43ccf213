//! Subcommands that change a server's data: through the admin socket when it runs, else on the database itself.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Subcommand;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Failure, Flags, appservice, job, node, open_server, peer, readers, report};
use crate::admin::{self, AdminCommand, AdminError, AdminReply, UserLine};
use crate::config::Config;
use crate::data_folder::DataFolder;

/// What to do with accounts. Passwords are asked for, or read as one line from standard input.
#[derive(Debug, Subcommand)]
pub(super) enum UserAction {
    /// Make an account
    Create {
        /// The part of the user id before the colon
        name: String,
        /// The account administers the server
        #[arg(long)]
        admin: bool,
    },
    /// Give an account another password and log out its devices
    Password {
        /// The user id, or the part of it before the colon
        name: String,
    },
    /// Close an account for good
    Deactivate {
        /// The user id, or the part of it before the colon
        name: String,
    },
    /// List all accounts
    List,
}

/// What to do with registration tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenAction {
    /// Make a token with which somebody can register
    Create {
        /// How many accounts may be made with it [default: one]
        #[arg(long, default_value_t = 1, hide_default_value = true)]
        uses: u32,
        /// For how many hours it is good [default: for ever]
        #[arg(long, value_name = "HOURS")]
        valid_hours: Option<u32>,
    },
}

pub(super) async fn user(action: UserAction, flags: Flags) -> Result<(), Failure> {
    let config = flags.load()?.config;
    match action {
        UserAction::Create { name, admin } => {
            let password = ask_password()?;
            print(
                execute(
                    &config,
                    AdminCommand::UserCreate {
                        name,
                        password,
                        admin,
                    },
                )
                .await?,
            )
        }
        UserAction::Password { name } => {
            let password = ask_password()?;
            print(execute(&config, AdminCommand::UserPassword { name, password }).await?)
        }
        UserAction::Deactivate { name } => {
            print(execute(&config, AdminCommand::UserDeactivate { name }).await?)
        }
        UserAction::List => list(&config).await,
    }
}

pub(super) async fn token(action: TokenAction, flags: Flags) -> Result<(), Failure> {
    let TokenAction::Create { uses, valid_hours } = action;
    let valid_seconds = valid_hours.map(|hours| u64::from(hours) * 3600);
    let config = flags.load()?.config;
    print(
        execute(
            &config,
            AdminCommand::TokenCreate {
                uses: Some(uses),
                valid_seconds,
            },
        )
        .await?,
    )
}

async fn list(config: &Config) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let reply = execute(config, AdminCommand::UserList { after: after.clone() }).await?;
        let AdminReply::Users { users } = &reply else {
            return print(reply);
        };
        let Some(last) = users.last() else { return Ok(()) };
        after = last.user_id.clone();
        print(reply)?;
    }
}

/// Has the running server do it, or does it here when none runs.
pub(super) async fn execute(config: &Config, command: AdminCommand) -> Result<AdminReply, Failure> {
    match admin::send(&DataFolder::admin_socket_in(&config.data), &command).await {
        Err(AdminError::NoServer) => {
            let folder = DataFolder::open(&config.data)?;
            let server = open_server(&folder, config).await?;
            let reply = admin::execute(&server, command).await;
            server.close().await;
            Ok(reply)
        }
        replied => replied.map_err(|error| Failure::Other(error.to_string())),
    }
}

/// Prints a reply; a refusal is a failure.
pub(super) fn print(reply: AdminReply) -> Result<(), Failure> {
    match reply {
        AdminReply::Done { message } => say!("{message}"),
        AdminReply::Token { token } => say!("{token}"),
        AdminReply::Users { users } => users.iter().for_each(|user| say!("{}", line(user))),
        AdminReply::Peers { peers, refusals } => {
            peers.iter().flat_map(peer::lines).for_each(|line| say!("{line}"));
            for (reason, count) in refusals {
                say!("refused since the start: {reason} {count}");
            }
        }
        AdminReply::Jobs { counts, jobs } => {
            counts.iter().for_each(|count| say!("{}", job::count_line(count)));
            jobs.iter().for_each(|one| say!("{}", job::line(one)));
        }
        AdminReply::Job {
            job,
            payload,
            attempts,
        } => {
            say!("{}", job::line(&job));
            say!("  {payload}");
            attempts
                .iter()
                .for_each(|attempt| say!("{}", job::attempt_line(attempt)));
        }
        AdminReply::Reports { reports } => reports.iter().for_each(|one| say!("{}", report::line(one))),
        AdminReply::Readers { readers: all } => {
            all.iter()
                .flat_map(readers::lines)
                .for_each(|line| say!("{line}"));
        }
        AdminReply::SetAside { records } => {
            records
                .iter()
                .for_each(|record| say!("{}", readers::set_aside_line(record)));
        }
        AdminReply::Nodes { nodes } => {
            nodes.iter().flat_map(node::lines).for_each(|line| say!("{line}"));
        }
        AdminReply::Appservices { services } => {
            services
                .iter()
                .flat_map(appservice::lines)
                .for_each(|line| say!("{line}"));
        }
        AdminReply::Refused { reason } => return Err(Failure::Other(reason)),
    }
    Ok(())
}

fn line(user: &UserLine) -> String {
    let marks = [(user.admin, " admin"), (user.deactivated, " deactivated")];
    let marks = marks
        .into_iter()
        .filter_map(|(applies, mark)| applies.then_some(mark));
    user.user_id.clone() + &marks.collect::<String>()
}

/// A password: typed unseen at a terminal, else the first line of standard input. Never an argument, which everybody
/// on the machine could read.
fn ask_password() -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::Other(format!("cannot read the password: {error}"));
    let stdin = io::stdin();
    let shown = if stdin.is_terminal() {
        eprint!("password: ");
        io::stderr().flush().map_err(failed)?;
        let shown = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
        let mut unseen = shown.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &unseen).map_err(|error| failed(error.into()))?;
        Some(shown)
    } else {
        None
    };
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = shown {
        eprintln!();
        tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(|error| failed(error.into()))?;
    }
    read.map_err(failed)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::Other("the password is empty".to_owned()));
    }
    Ok(password.to_owned())
}
