//! `maru serve`: starts the server, says where it is, and runs it until a signal ends it.

use std::net::SocketAddr;
use std::sync::Arc;

use maru_federation::quic::BoundSocket;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use super::{Failure, open_server};
use crate::admin::{self, AdminSocket};
use crate::config::{BaseUrl, Config, Loaded};
use crate::data_folder::DataFolder;
use crate::http::listener::{Listener, ListenerOptions};
use crate::http::tls::{Certificates, TlsFiles};
use crate::http::{health, router};
use crate::observe::{logging, process};
use crate::peers::OwnRecord;
use crate::server::Server;

pub(super) async fn run(loaded: Loaded) -> Result<(), Failure> {
    let mut config = loaded.config;
    logging::init(&config.log);
    for variable in &loaded.unknown_variables {
        tracing::warn!(variable, "this variable names no key of the configuration");
    }
    fit_connections(&mut config);

    let signals = Signals::take().map_err(|error| Failure::Other(format!("cannot take signals: {error}")))?;
    let folder = DataFolder::open(&config.data)?;
    let certificates = TlsFiles::configured(&config.tls)
        .map(Certificates::load)
        .transpose()?
        .map(Arc::new);
    let clients = bind(
        "listen",
        config.listen,
        certificates.clone(),
        ListenerOptions::configured(&config),
    )
    .await?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(
            bind(
                "metrics_listen",
                address,
                None,
                ListenerOptions::configured(&config),
            )
            .await?,
        ),
        None => None,
    };
    let server = open_server(&folder, &config).await?;
    let socket = AdminSocket::bind(&folder.admin_socket())
        .map_err(|error| Failure::Other(format!("cannot open the admin socket: {error}")))?;
    let federation = federate(&server, &folder, &config).await?;
    announce(&server, &folder, &clients, metrics.as_ref(), federation).await?;

    let stop = CancellationToken::new();
    tokio::spawn(signals.heed(stop.clone(), certificates));
    let serving = async {
        let metrics = async {
            if let Some(metrics) = metrics {
                metrics
                    .serve(health::metrics_router(), stop.clone().cancelled_owned())
                    .await;
            }
        };
        let stopping = async {
            stop.cancelled().await;
            server.stop();
        };
        tokio::join!(
            stopping,
            clients.serve(router(server.clone()), stop.clone().cancelled_owned()),
            metrics
        );
    };
    tokio::select! {
        () = serving => {}
        () = socket.serve(|command| admin::execute(&server, command)) => {}
    }
    server.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Allows as many files as the system does, and no more connections than fit.
fn fit_connections(config: &mut Config) {
    let files = process::raise_open_files().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the number of open files");
        None
    });
    let fitting = process::connections_within(config.limits.connections, files);
    if fitting < config.limits.connections {
        tracing::debug!(
            connections = fitting,
            "the system's limit on open files allows fewer connections"
        );
        config.limits.connections = fitting;
    }
}

async fn bind(
    key: &str,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    options: ListenerOptions,
) -> Result<Listener, Failure> {
    let bound = Listener::bind(address, certificates, options).await;
    bound.map_err(|error| Failure::Other(format!("cannot listen on {address} (`{key}`): {error}")))
}

/// Begins to speak with other homeservers where that is configured.
async fn federate(
    server: &Server,
    folder: &DataFolder,
    config: &Config,
) -> Result<Option<SocketAddr>, Failure> {
    let Some(address) = config.federation_listen else {
        return Ok(None);
    };
    let socket = BoundSocket::bind(address);
    let socket = socket.map_err(|error| Failure::Other(format!("{error} (`federation_listen`)")))?;
    let own = OwnRecord::of(folder.keys(), &config.federation.addresses);
    let started = server.peers.start(own, &folder.keys().tls, socket).await;
    let failed = |refusal| Failure::Other(format!("cannot speak with other homeservers: {refusal}"));
    started.map(Some).map_err(failed)
}

/// Says on standard output where the server is. Scripts read these lines, the last of which means that it answers.
async fn announce(
    server: &Server,
    folder: &DataFolder,
    clients: &Listener,
    metrics: Option<&Listener>,
    federation: Option<SocketAddr>,
) -> Result<(), Failure> {
    let unknown = |error| Failure::Other(format!("cannot tell the bound address: {error}"));
    let bound = format!(
        "{}://{}",
        clients.scheme(),
        clients.local_addr().map_err(unknown)?
    );
    let public = server
        .config
        .public_base_url
        .as_ref()
        .map_or(bound.as_str(), BaseUrl::as_str);
    say!("data folder: {}", folder.path().display());
    say!("server name: {}", server.identity.name());
    if let Some(metrics) = metrics {
        say!(
            "metrics listening on http://{}/metrics",
            metrics.local_addr().map_err(unknown)?
        );
    }
    if let Some(address) = federation {
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
