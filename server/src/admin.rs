//! The admin socket: how subcommands change the data of a server that runs.
//!
//! A Unix socket in the data folder, for its owner only. One connection carries one command and its reply, each one
//! line of JSON of bounded length.

mod appservices;
mod jobs;
mod nodes;
mod peers;
mod readers;
mod reports;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

pub use appservices::{AppserviceCommand, AppserviceLine};
pub use jobs::{AttemptLine, JobCommand, JobCountLine, JobLine};
pub use nodes::{NodeCommand, NodeLine, NodeState};
pub use peers::{PeerCommand, PeerLine, RefusedLine};
pub use readers::{ReaderLine, ReadersCommand, SetAsideLine};
pub use reports::{ReportCommand, ReportLine};

use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::accounts::devices::Devices;
use crate::store::accounts::users::StoredUser;

/// Longest command or reply, in bytes.
const LINE_BYTES: u64 = 16 * 1024 * 1024;
/// Time for a command to arrive once its connection is open.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// Commands that are done at the same time; more wait.
const COMMANDS_AT_ONCE: usize = 16;
/// Accounts in one reply.
const USERS_AT_ONCE: i64 = 1000;
/// Longest path that a socket can be bound to, in bytes.
const PATH_BYTES: usize = 100;

/// What the admin can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminCommand {
    /// Make an account.
    UserCreate {
        /// The part of the user id before the colon.
        name: String,
        /// The password in the clear; the socket never leaves the machine.
        password: String,
        /// Whether the account administers the server.
        admin: bool,
    },
    /// Give an account another password and log out its devices.
    UserPassword {
        /// The user id, or the part of it before the colon.
        name: String,
        /// The new password.
        password: String,
    },
    /// Close an account for good.
    UserDeactivate {
        /// The user id, or the part of it before the colon.
        name: String,
    },
    /// List accounts, some at a time, in the order of their ids.
    UserList {
        /// The user id after which to begin; empty for the first.
        after: String,
    },
    /// Make a registration token.
    TokenCreate {
        /// How many accounts may be made with it; unset: any number.
        uses: Option<u32>,
        /// For how long it is good, in seconds; unset: for ever.
        valid_seconds: Option<u64>,
    },
    /// Something about other homeservers.
    Peer(PeerCommand),
    /// Something about durable jobs.
    Job(JobCommand),
    /// Something about readers of the log.
    Readers(ReadersCommand),
    /// Something about nodes.
    Node(NodeCommand),
    /// Something about reports of users.
    Report(ReportCommand),
    /// Something about application services.
    Appservice(AppserviceCommand),
}

/// What the admin is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum AdminReply {
    /// Done; one line says what.
    Done {
        /// The line.
        message: String,
    },
    /// Accounts; none when there are no more.
    Users {
        /// One for each.
        users: Vec<UserLine>,
    },
    /// A registration token.
    Token {
        /// The token.
        token: String,
    },
    /// Other homeservers.
    Peers {
        /// One for each.
        peers: Vec<PeerLine>,
        /// Connections that were refused, or closed for a fault, since the start, by reason.
        refusals: BTreeMap<String, u64>,
    },
    /// Durable jobs.
    Jobs {
        /// How many there are, by kind and state.
        counts: Vec<JobCountLine>,
        /// Some of them.
        jobs: Vec<JobLine>,
    },
    /// One durable job.
    Job {
        /// The job.
        job: JobLine,
        /// What is to be done, as JSON.
        payload: String,
        /// The last attempts that have ended.
        attempts: Vec<AttemptLine>,
    },
    /// Readers of the log.
    Readers {
        /// One for each.
        readers: Vec<ReaderLine>,
    },
    /// What a reader of the log went past.
    SetAside {
        /// One for each position.
        records: Vec<SetAsideLine>,
    },
    /// The processes that serve this homeserver.
    Nodes {
        /// One for each.
        nodes: Vec<NodeLine>,
    },
    /// Reports of users.
    Reports {
        /// One for each.
        reports: Vec<ReportLine>,
    },
    /// Application services.
    Appservices {
        /// One for each.
        services: Vec<AppserviceLine>,
    },
    /// Not done.
    Refused {
        /// One line that says why.
        reason: String,
    },
}

/// One account in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLine {
    /// The user id.
    pub user_id: String,
    /// Whether the account administers the server.
    pub admin: bool,
    /// Whether the account is closed.
    pub deactivated: bool,
}

impl From<StoredUser> for UserLine {
    fn from(user: StoredUser) -> Self {
        Self {
            user_id: user.user_id.to_string(),
            admin: user.admin,
            deactivated: user.deactivated,
        }
    }
}

/// Why a command got no reply.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens: no server runs on this folder.
    #[error("no server runs on this data folder")]
    NoServer,
    /// The connection failed.
    #[error("cannot talk to the running server: {0}")]
    Io(#[from] io::Error),
    /// The other side is not of this version, or not a server.
    #[error("the running server answers what this program does not understand: {0}")]
    NotUnderstood(#[from] serde_json::Error),
}

/// The socket of a running server. Gone from the folder when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Binds the socket. A socket that an earlier process left behind is replaced, so the caller must hold the
    /// folder's lock.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        // Bound aside and moved, so that it never stands there with the permissions of other files.
        let aside = path.with_file_name(format!(".admin-{:08x}", rand::random::<u32>()));
        let listener = UnixListener::bind(ShortPath::of(&aside)?.as_path())?;
        fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
        fs::rename(&aside, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers commands with `execute`, several at a time, until it is dropped: one that waits for a peer must not hold
    /// up the others.
    pub async fn serve<F: Future<Output = AdminReply>>(&self, execute: impl Fn(AdminCommand) -> F) {
        let mut answering = FuturesUnordered::new();
        loop {
            let answered = tokio::select! {
                accepted = self.listener.accept(), if answering.len() < COMMANDS_AT_ONCE => match accepted {
                    Ok((stream, _)) => {
                        answering.push(answer(stream, &execute));
                        continue;
                    }
                    Err(error) => Err(AdminError::Io(error)),
                },
                Some(answered) = answering.next() => answered,
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "a command on the admin socket failed");
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Does what a command asks for.
pub async fn execute(server: &Server, command: AdminCommand) -> AdminReply {
    try_execute(server, command)
        .await
        .unwrap_or_else(|refusal| AdminReply::Refused {
            reason: refusal.in_full(),
        })
}

async fn try_execute(server: &Server, command: AdminCommand) -> Result<AdminReply, Refusal> {
    let accounts = &server.accounts;
    let named = |name: &str| {
        accounts
            .named(name)
            .ok_or_else(|| Refusal::not_found("there is no such account"))
    };
    let done = |what, user_id| {
        Ok(AdminReply::Done {
            message: format!("{what} {user_id}"),
        })
    };
    match command {
        AdminCommand::UserCreate {
            name,
            password,
            admin,
        } => done("made", accounts.create_user(&name, password, admin).await?),
        AdminCommand::UserPassword { name, password } => {
            let user_id = named(&name)?;
            accounts
                .set_password(&user_id, password, None, Devices::All)
                .await?;
            done("changed the password of", user_id)
        }
        AdminCommand::UserDeactivate { name } => {
            let user_id = named(&name)?;
            accounts.deactivate(&user_id, None, false).await?;
            done("deactivated", user_id)
        }
        AdminCommand::UserList { after } => {
            let users = server.store.accounts.users_after(&after, USERS_AT_ONCE).await?;
            Ok(AdminReply::Users {
                users: users.into_iter().map(UserLine::from).collect(),
            })
        }
        AdminCommand::TokenCreate { uses, valid_seconds } => {
            let token = accounts
                .create_registration_token(uses, valid_seconds.map(Duration::from_secs))
                .await?;
            Ok(AdminReply::Token { token })
        }
        AdminCommand::Peer(command) => peers::execute(server, command).await,
        AdminCommand::Job(command) => jobs::execute(server, command).await,
        AdminCommand::Readers(command) => readers::execute(server, command).await,
        AdminCommand::Report(command) => reports::execute(server, command).await,
        AdminCommand::Node(command) => nodes::execute(server, command).await,
        AdminCommand::Appservice(command) => appservices::execute(server, command).await,
    }
}

async fn answer<F>(mut stream: UnixStream, execute: &impl Fn(AdminCommand) -> F) -> Result<(), AdminError>
where
    F: Future<Output = AdminReply>,
{
    let command = tokio::time::timeout(COMMAND_TIME, read_line(&mut stream)).await;
    let command = command.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    let reply = match command {
        Ok(command) => execute(command).await,
        Err(AdminError::NotUnderstood(error)) => AdminReply::Refused {
            reason: format!("the running server does not understand this command: {error}"),
        },
        Err(error) => return Err(error),
    };
    write_line(&mut stream, &reply).await
}

/// Sends a command to the server that runs on a data folder, and waits for its reply.
///
/// # Errors
///
/// [`AdminError::NoServer`] when none runs.
pub async fn send(socket: &Path, command: &AdminCommand) -> Result<AdminReply, AdminError> {
    let connected = UnixStream::connect(ShortPath::of(socket)?.as_path()).await;
    let mut stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdminError::NoServer,
        _ => AdminError::Io(error),
    })?;
    write_line(&mut stream, command).await?;
    read_line(&mut stream).await
}

async fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> Result<(), AdminError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(stream.write_all(&line).await?)
}

async fn read_line<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T, AdminError> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_BYTES))
        .read_until(b'\n', &mut line)
        .await?;
    Ok(serde_json::from_slice(&line)?)
}

/// A path to a socket that is short enough for the system, whatever the length of the real one.
struct ShortPath {
    path: PathBuf,
    /// Keeps `/proc/self/fd/…` valid.
    _folder: Option<File>,
}

impl ShortPath {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= PATH_BYTES {
            return Ok(Self {
                path: path.to_owned(),
                _folder: None,
            });
        }
        let folder = File::open(folder)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self {
            path: short,
            _folder: Some(folder),
        })
    }

    fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> AdminCommand {
        AdminCommand::UserList { after: String::new() }
    }

    async fn ask(folder: &Path, command: AdminCommand) -> Result<AdminReply, AdminError> {
        send(&folder.join("admin.sock"), &command).await
    }

    #[tokio::test]
    async fn a_command_is_answered_and_the_socket_is_private() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "long".repeat(40)] {
            let folder = parent.path().join(name);
            fs::create_dir(&folder).unwrap();
            assert!(matches!(ask(&folder, list()).await, Err(AdminError::NoServer)));
            let socket = AdminSocket::bind(&folder.join("admin.sock")).unwrap();
            let mode = fs::metadata(folder.join("admin.sock"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            let serving = socket.serve(async |command| AdminReply::Done {
                message: format!("{command:?}"),
            });
            let asking = async {
                for _ in 0..2 {
                    let reply = ask(&folder, list()).await.unwrap();
                    assert_eq!(
                        reply,
                        AdminReply::Done {
                            message: format!("{:?}", list())
                        }
                    );
                }
            };
            tokio::select! { () = serving => {}, () = asking => {} }
            drop(socket);
            assert!(matches!(ask(&folder, list()).await, Err(AdminError::NoServer)));
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_the_next_command_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        let serving = socket.serve(async |_| AdminReply::Done {
            message: String::new(),
        });
        let asking = async {
            drop(UnixStream::connect(&path).await.unwrap());
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"{\"command\":\"fly\"}\n").await.unwrap();
            let reply: AdminReply = read_line(&mut stream).await.unwrap();
            assert!(matches!(reply, AdminReply::Refused { .. }), "{reply:?}");
            assert!(matches!(
                ask(folder.path(), list()).await,
                Ok(AdminReply::Done { .. })
            ));
        };
        tokio::select! { () = serving => {}, () = asking => {} }
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        std::mem::forget(AdminSocket::bind(&path).unwrap());
        AdminSocket::bind(&path).unwrap();
    }
}
