//! Load driver: sends bounded load at one homeserver on this machine, checks that every message arrived exactly
//! once, and prints figures as JSON.

mod answer;
mod client;
mod context;
mod crowd;
mod error;
mod exactly_once;
mod listen;
mod machine;
mod matrix;
mod measure;
mod process;
mod report;
mod scan;
mod scenarios;
mod stream;
mod target;
mod traffic;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};

use crate::context::Context;
use crate::error::LoadError;
use crate::machine::Machine;
use crate::measure::Watched;
use crate::process::Processes;
use crate::report::Report;
use crate::scenarios::Scenario;
use crate::target::Target;

/// Sends bounded load at a Matrix homeserver on this machine and checks that nothing was lost or doubled.
///
/// Prints one JSON document on standard output and a table on standard error. The status is 1 if a scenario could
/// not be finished or a message was lost or doubled, 2 if the command line makes no sense, 3 if --require-targets
/// is given and a target was missed.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Args)]
struct Common {
    /// Base URL of the homeserver; loopback only
    #[arg(long, global = true, default_value = "http://127.0.0.1:8008")]
    target: String,
    /// Base URL of a further node of the same homeserver; may be repeated. Clients are spread over all nodes
    #[arg(long, global = true, value_name = "URL")]
    node: Vec<String>,
    /// PEM file of the authority that an https target is checked against
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Process of the homeserver, to count its processor time and memory; repeated for each of its nodes
    #[arg(long, global = true)]
    pid: Vec<u32>,
    /// Counts the descendants of --pid too
    #[arg(long, global = true)]
    descendants: bool,
    /// Base URL of a second homeserver that the first one knows as a peer, for the scenarios with two
    #[arg(long, global = true, value_name = "URL")]
    other: Option<String>,
    /// Process of the second homeserver, counted apart; `catch-up` stops it for a while (SIGSTOP)
    #[arg(long, global = true, value_name = "PID")]
    other_pid: Option<u32>,
    /// UDP address at which the first homeserver listens for others, for `join` and `idle-peers`
    #[arg(long, global = true, value_name = "ADDRESS")]
    federation: Option<SocketAddr>,
    /// Process of the homeserver's PostgreSQL, counted apart and with its descendants
    #[arg(long, global = true, value_name = "PID")]
    database_pid: Vec<u32>,
    /// Folder on the disk that the homeserver writes to
    #[arg(long, global = true, value_name = "FOLDER", default_value = ".")]
    fsync_dir: PathBuf,
    /// For homeservers that register only who has a token
    #[arg(long, global = true, value_name = "TOKEN")]
    registration_token: Option<String>,
    /// The most seconds that one scenario may take, set-up included
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 900)]
    deadline: u64,
    /// Ends with status 3 if a target was missed
    #[arg(long, global = true)]
    require_targets: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: the driver must leave the machine to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime
        .map_err(LoadError::io("starting"))
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    let report = match ran {
        Ok(report) => report,
        Err(error) => {
            eprintln!("maru-load: {error}");
            return ExitCode::from(2);
        }
    };
    eprint!("{}", report.table());
    match serde_json::to_string_pretty(&report) {
        Ok(json) => println!("{json}"),
        Err(error) => eprintln!("maru-load: {error}"),
    }
    match (report.sound(), report.met()) {
        (false, _) => ExitCode::from(1),
        (true, false) if arguments.common.require_targets => ExitCode::from(3),
        _ => ExitCode::SUCCESS,
    }
}

async fn run(arguments: &Arguments) -> Result<Report, LoadError> {
    let common = &arguments.common;
    let (scenarios, judge) = match &arguments.scenario {
        Scenario::All(size) => (size.scenarios(), !size.quick),
        one => (vec![one.clone()], true),
    };
    let target = Target::new(&common.target, common.ca.as_deref())?;
    let watched = Watched {
        server: Processes {
            pids: common.pid.clone(),
            descendants: common.descendants,
        },
        database: Processes {
            pids: common.database_pid.clone(),
            descendants: true,
        },
        other: Processes {
            pids: common.other_pid.into_iter().collect(),
            descendants: false,
        },
    };
    let token = common.registration_token.clone();
    let mut context = Context::new(target, watched.clone(), token.clone(), judge);
    context.federation = common.federation;
    for node in &common.node {
        let node = Target::new(node, common.ca.as_deref())?;
        context.further_nodes.push(Arc::new(node));
    }
    if let Some(other) = &common.other {
        let target = Target::new(other, common.ca.as_deref())?;
        context.other = Some(Box::new(Context::new(target, watched, token, judge)));
    }
    let mut report = Report {
        machine: Machine::inspect(&common.fsync_dir)?,
        results: Vec::new(),
    };
    for scenario in scenarios {
        eprintln!("{} …", scenario.name());
        report.results.push(
            scenario
                .outcome(&context, Duration::from_secs(common.deadline))
                .await,
        );
    }
    Ok(report)
}
