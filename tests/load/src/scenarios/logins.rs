//! Concurrent logins by password: the price of a password hash, and whether it starves others.

use std::collections::HashSet;
use std::time::Instant;

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::client::Connection;
use crate::context::Context;
use crate::error::LoadError;
use crate::matrix;
use crate::measure::{Latencies, Stopwatch};
use crate::report::Outcome;

/// How many log in.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Logins altogether
    #[arg(long, default_value_t = 200)]
    pub(crate) logins: usize,
    /// Logins at once
    #[arg(long, default_value_t = 8)]
    pub(crate) concurrency: usize,
    /// Accounts that they log in to
    #[arg(long, default_value_t = 8)]
    pub(crate) accounts: usize,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let accounts = context.users(size.accounts).await?;
    let stopwatch = Stopwatch::start(&context.watched)?;
    let shares = try_join_all((0..size.concurrency).map(async |worker| {
        let mut connection = Connection::new(context.target.clone());
        let mut share = Vec::new();
        let turns = accounts.iter().cycle().take(size.logins);
        for account in turns.skip(worker).step_by(size.concurrency) {
            let started = Instant::now();
            let device = matrix::login(&mut connection, &account.name).await?;
            share.push((device, started.elapsed()));
        }
        Ok::<_, LoadError>(share)
    }));
    let (devices, durations): (Vec<_>, Vec<_>) = shares.await?.into_iter().flatten().unzip();
    let usage = stopwatch.usage()?;

    outcome.figure("logins_per_second", size.logins as f64 / usage.wall.as_secs_f64());
    outcome.latencies("login", &Latencies::new(durations));
    outcome.cpu(&usage, size.logins, "login");
    outcome.busy(&usage);

    let tokens: HashSet<&str> = devices.iter().map(|device| device.token.as_str()).collect();
    if tokens.len() != size.logins {
        return Err(LoadError::Verification(format!(
            "{} logins gave {} tokens",
            size.logins,
            tokens.len()
        )));
    }
    for session in context.sessions_of(&devices).iter_mut().take(size.accounts) {
        session.whoami().await?;
    }
    Ok(())
}
