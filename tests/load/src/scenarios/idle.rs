//! Idle connections, every one its own device: what each costs the server in resident memory.

use std::time::Duration;

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::context::Context;
use crate::error::LoadError;
use crate::listen::{Listener, Transport};
use crate::machine::raise_open_files;
use crate::matrix::{self, User};
use crate::report::Outcome;

/// How many are connected, and how.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// How the devices listen
    #[arg(long, value_enum, default_value_t = Transport::LongPoll)]
    pub(crate) transport: Transport,
    /// Connections that are open before counting begins
    #[arg(long, default_value_t = 500)]
    pub(crate) base: usize,
    /// Connections that are counted
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Accounts that the devices are shared out to
    #[arg(long, default_value_t = 105)]
    pub(crate) accounts: usize,
    /// The most devices of one account
    #[arg(long, default_value_t = 100)]
    pub(crate) devices_per_account: usize,
}

/// Longer than the scenario, so that no poll ends by itself.
const POLL: Duration = Duration::from_secs(1800);
/// Connections that are being opened at the same time.
const OPENING: usize = 64;
/// How long the server's memory may take to come to rest.
const SETTLE_AT_MOST: usize = 240;
const SETTLE_STEP: Duration = Duration::from_millis(500);
/// How still it is then, and for how many steps: allocators give back what they do not need within ten seconds.
const SETTLE_KIB: u64 = 64;
const SETTLED_STEPS: usize = 24;

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let wanted = size.base + size.connections;
    if size.accounts * size.devices_per_account < wanted || size.connections == 0 {
        return Err(LoadError::Usage(
            "idle needs as many devices as connections".into(),
        ));
    }
    if !context.watched.server.is_watched() {
        return Err(LoadError::Usage(
            "idle needs --pid: memory is read from /proc".into(),
        ));
    }
    if raise_open_files()? < wanted as u64 + 100 {
        return Err(LoadError::Usage(format!(
            "the system does not allow {wanted} open sockets"
        )));
    }
    let devices = devices(context, size.accounts, wanted).await?;
    let (base, counted) = devices.split_at(size.base);
    let mut crowd = JoinSet::new();
    open(size.transport, context, base, &mut crowd).await?;
    let before = settled_kib(context).await?;
    open(size.transport, context, counted, &mut crowd).await?;
    let after = settled_kib(context).await?;
    if let Some(ended) = crowd.try_join_next() {
        let why = ended.map_or_else(|error| error.to_string(), |error| error.to_string());
        return Err(LoadError::Verification(format!(
            "a connection did not stay open: {why}"
        )));
    }

    outcome.figure("resident_before_mib", before as f64 / 1024.0);
    outcome.figure("resident_after_mib", after as f64 / 1024.0);
    let each = after.saturating_sub(before) as f64 / size.connections as f64;
    outcome.figure("resident_kib_per_connection", each);
    if context.judge {
        let limit = match (size.transport, context.target.tls.is_some()) {
            (Transport::Websocket, false) => 5.0,
            (Transport::LongPoll, false) => 10.0,
            (Transport::Websocket, true) => 12.0,
            (Transport::LongPoll, true) => 18.0,
        };
        outcome.at_most("resident_kib_per_connection", limit);
    }
    Ok(())
}

/// Logs in `wanted` devices. Passwords are slow to check on purpose, so that one account's further devices come by
/// login tokens where the server gives them.
pub(super) async fn devices(
    context: &Context,
    accounts: usize,
    wanted: usize,
) -> Result<Vec<User>, LoadError> {
    let share = wanted.div_ceil(accounts);
    let accounts = context.users(accounts).await?;
    let logging_in = accounts.into_iter().map(async |account| {
        let mut connection = Connection::new(context.node());
        let name = account.name.clone();
        let mut session = context.sessions_of(std::slice::from_ref(&account)).pop();
        let mut devices = vec![account];
        let mut tokens_given = true;
        while devices.len() < share {
            let token = match &mut session {
                Some(session) if tokens_given => session.login_token().await?,
                _ => None,
            };
            tokens_given = token.is_some();
            devices.push(match token {
                Some(token) => matrix::login_by_token(&mut connection, &name, &token).await?,
                None => matrix::login(&mut connection, &name).await?,
            });
        }
        Ok::<_, LoadError>(devices)
    });
    let mut devices: Vec<User> = try_join_all(logging_in).await?.into_iter().flatten().collect();
    devices.truncate(wanted);
    Ok(devices)
}

/// Opens one connection for each device and leaves them listening in `crowd`, where they end only by failing.
async fn open(
    transport: Transport,
    context: &Context,
    devices: &[User],
    crowd: &mut JoinSet<LoadError>,
) -> Result<(), LoadError> {
    let (listening, mut listeners) = mpsc::channel(OPENING);
    let opening = try_join_all((0..OPENING).map(|worker| {
        let listening = listening.clone();
        async move {
            for device in devices.iter().skip(worker).step_by(OPENING) {
                let listener = Listener::start(transport, context, device, POLL).await?;
                // The receiver is there until all senders are gone.
                let _ = listening.send(listener).await;
            }
            Ok::<_, LoadError>(())
        }
    }));
    drop(listening);
    let keeping = async {
        while let Some(mut listener) = listeners.recv().await {
            crowd.spawn(async move {
                loop {
                    if let Err(error) = listener.next().await {
                        return error;
                    }
                }
            });
        }
        Ok(())
    };
    futures_util::future::try_join(opening, keeping).await.map(drop)
}

/// The server's resident memory once it has come to rest.
async fn settled_kib(context: &Context) -> Result<u64, LoadError> {
    let (mut last, mut still) = (0, 0);
    for _ in 0..SETTLE_AT_MOST {
        tokio::time::sleep(SETTLE_STEP).await;
        let now = context.watched.server.resident_kib()?.unwrap_or(0);
        still = if now.abs_diff(last) <= SETTLE_KIB {
            still + 1
        } else {
            0
        };
        last = now;
        if still == SETTLED_STEPS {
            break;
        }
    }
    Ok(last)
}
