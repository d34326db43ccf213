//! `maru serve`: starts the server, says where it is, and runs it until a signal ends it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Failure;
use super::running::{Running, address_of};
use super::signals::Signals;
use crate::config::{BaseUrl, Loaded};
use crate::http::transport::tls::{Certificates, TlsFiles};
use crate::observe::logging;

pub(super) async fn run(loaded: Loaded) -> Result<(), Failure> {
    let config = loaded.config;
    logging::init(&config.log);
    for variable in &loaded.unknown_variables {
        tracing::warn!(variable, "this variable names no key of the configuration");
    }
    let signals = Signals::take()?;
    let certificates = TlsFiles::configured(&config.tls)
        .map(Certificates::load)
        .transpose()?
        .map(Arc::new);
    let running = Running::open(config, certificates.clone()).await?;
    announce(&running).await?;

    let stop = CancellationToken::new();
    tokio::spawn(signals.heed(stop.clone(), certificates));
    Box::pin(running.serve(stop)).await;
    tracing::info!("stopped");
    Ok(())
}

/// Says on standard output where the server is. Scripts read these lines, the last of which means that it answers.
async fn announce(running: &Running) -> Result<(), Failure> {
    let Running { server, folder, .. } = running;
    let bound = address_of(&running.clients)?;
    let public = server
        .config
        .public_base_url
        .as_ref()
        .map_or(bound.as_str(), BaseUrl::as_str);
    say!("data folder: {}", folder.path().display());
    say!("server name: {}", server.identity.name());
    if let Some(metrics) = &running.metrics {
        say!("metrics listening on {}/metrics", address_of(metrics)?);
    }
    if let Some(address) = running.for_nodes {
        say!("node links listening on {address}");
    }
    if let Some(address) = running.federation {
        say!("federation listening on {address}");
    }
    let token = server.accounts.ensure_first_admin_token().await;
    if let Some(token) = token.map_err(|refusal| Failure::Other(refusal.to_string()))? {
        say!("first start: register the admin at {public} with this token, which works once: {token}");
    }
    say!("client API listening on {bound}");
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, name = %server.identity.name(), address = bound, "started");
    Ok(())
}
