//! `maru demo`: two homeservers in this process and a conversation between them, to see federation before anything is
//! configured. Both are whole servers with keys, a database and listeners of their own; all they share is the process.

mod person;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::running::{Running, address_of};
use super::signals::Signals;
use super::{Failure, Flags};
use crate::config::{Config, Log, LogLevel};
use crate::observe::logging;
use crate::server::Server;
use person::Person;

/// How long anything between the two servers may take before the demo counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the two say to each other, by turns.
const CONVERSATION: [&str; 6] = [
    "안녕! Is anybody there?",
    "Yes. I am on a server of my own.",
    "So am I: my messages are in my database before you see them.",
    "And in mine when I do. This room is on both.",
    "Then it goes on if one of us is away?",
    "On each side, and the rest follows as soon as we meet again.",
];

/// How the demo is run.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// End after the conversation; the status is 0 if every message arrived
    #[arg(long)]
    once: bool,
}

/// Where the data of both servers lie.
enum Folder {
    /// Gone when the demo ends.
    Temporary(TempDir),
    /// The admin's; it stays.
    Given(PathBuf),
}

pub(super) async fn run(options: Options, flags: Flags) -> Result<(), Failure> {
    logging::init(&Log {
        level: LogLevel::Warn,
        ..Log::default()
    });
    let signals = Signals::take()?;
    let folder = Folder::of(flags)?;
    let [one, two] = [
        open(folder.path(), "one").await?,
        open(folder.path(), "two").await?,
    ];
    introduce(&one, &two);
    say!(
        "two homeservers, each with keys and a database of its own in {}:",
        folder.path().display()
    );
    for server in [&one, &two] {
        say!("  {}", server.server.identity.name());
    }

    let stop = CancellationToken::new();
    tokio::spawn(signals.heed(stop.clone(), None));
    let servers = [Arc::clone(&one.server), Arc::clone(&two.server)];
    let addresses = [address_of(&one.clients)?, address_of(&two.clients)?];
    let story = async {
        let told = tokio::select! {
            told = tell(&servers, &addresses, &options) => told,
            () = stop.cancelled() => Ok(()),
        };
        if told.is_ok() && !options.once {
            stop.cancelled().await;
        }
        stop.cancel();
        told
    };
    let ((), (), told) = tokio::join!(
        Box::pin(one.serve(stop.clone())),
        Box::pin(two.serve(stop.clone())),
        Box::pin(story)
    );
    told
}

impl Folder {
    /// The folder of `--data`, else a new one.
    fn of(flags: Flags) -> Result<Self, Failure> {
        if let Some(given) = flags.data {
            return Ok(Self::Given(given.into()));
        }
        let made = tempfile::Builder::new().prefix("maru-demo-").tempdir();
        made.map(Self::Temporary)
            .map_err(|error| Failure::Other(format!("cannot make a temporary folder: {error}")))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

/// A server with a key name, embedded SQLite and free ports of this machine.
async fn open(folder: &Path, name: &str) -> Result<Running, Failure> {
    let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config {
        data: folder.join(name),
        listen: free_port,
        federation_listen: Some(free_port),
        ..Config::default()
    };
    Box::pin(Running::open(config, None)).await
}

/// Tells each where the other is. That it is the other, its name proves.
fn introduce(one: &Running, two: &Running) {
    for (server, other) in [(one, two), (two, one)] {
        let name = other.server.identity.server_name.clone();
        server
            .server
            .peers
            .servers
            .addresses()
            .add(name, other.federation);
    }
}

/// Has a user of each server meet the other in a room and talk.
async fn tell(
    [one, two]: &[Arc<Server>; 2],
    addresses: &[String; 2],
    options: &Options,
) -> Result<(), Failure> {
    let mut alice = Person::of(one, "alice").await?;
    let mut bob = Person::of(two, "bob").await?;
    let begun = Instant::now();
    let room = alice.create_room("Maru").await?;
    in_time("the invitation", alice.invite(&room, &bob)).await?;
    in_time("the invitation", bob.is_invited(&room)).await?;
    in_time("the join", bob.join(&room)).await?;
    let took = milliseconds(begun.elapsed());
    say!("alice invited bob of the other server into a new room, and he joined: {took}");
    for (number, text) in CONVERSATION.iter().enumerate() {
        let (sender, hearer) = match number % 2 {
            0 => (&alice, &mut bob),
            _ => (&bob, &mut alice),
        };
        let names = format!("{} → {}", sender.name, hearer.name);
        let begun = Instant::now();
        let heard = async {
            let (sent, heard) = tokio::join!(sender.send(&room, text), hearer.hears(&room, text));
            sent.and(heard.map(|()| begun.elapsed()))
        };
        let took = in_time(&format!("“{text}”"), heard).await?;
        say!("  {names:<13}{:>9}  {text}", milliseconds(took));
    }
    if !options.once {
        say!("both servers stay up until Ctrl-C; log in on either side with any Matrix client:");
        for (person, address) in [&alice, &bob].into_iter().zip(addresses) {
            say!("  {address}  user {}  password {}", person.name, person.password);
        }
    }
    Ok(())
}

async fn in_time<T>(what: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = |_| Failure::Other(format!("{what} did not arrive within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, work).await.map_err(late)?
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}
