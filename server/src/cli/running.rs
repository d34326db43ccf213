//! A server with everything open that it serves on: what `serve` and `demo` have in common.

use std::net::SocketAddr;
use std::sync::Arc;

use maru_federation::quic::BoundSocket;
use tokio_util::sync::CancellationToken;

use super::federation::{bind_for_nodes, federate};
use super::{Failure, open_server};
use crate::admin::{self, AdminSocket};
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::http::discovery::health;
use crate::http::router;
use crate::http::transport::listener::{Listener, ListenerOptions};
use crate::http::transport::tls::Certificates;
use crate::observe::process;
use crate::server::Server;

/// A server that is ready to serve. Its folder is locked for as long as this value lives.
pub(super) struct Running {
    pub(super) folder: DataFolder,
    pub(super) server: Arc<Server>,
    /// Takes the connections of clients.
    pub(super) clients: Listener,
    /// Takes those of the collector, where that is configured.
    pub(super) metrics: Option<Listener>,
    /// Where it takes links of other nodes, where that is configured.
    pub(super) for_nodes: Option<SocketAddr>,
    /// Where other homeservers reach it, where that is configured and no other node speaks with them.
    pub(super) federation: Option<SocketAddr>,
    socket: AdminSocket,
}

impl Running {
    /// Takes the folder and the addresses of a configuration, opens the database, and begins to speak with other
    /// homeservers. Clients are answered from [`Running::serve`] on.
    pub(super) async fn open(
        mut config: Config,
        certificates: Option<Arc<Certificates>>,
    ) -> Result<Self, Failure> {
        fit_connections(&mut config);
        let folder = DataFolder::open(&config.data)?;
        let options = || ListenerOptions::configured(&config);
        let clients = bind("listen", config.listen, certificates, options()).await?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(bind("metrics_listen", address, None, options()).await?),
            None => None,
        };
        let for_nodes = bind_for_nodes(&mut config)?;
        let server = open_server(&folder, &config).await?;
        let socket = AdminSocket::bind(&folder.admin_socket())
            .map_err(|error| Failure::Other(format!("cannot open the admin socket: {error}")))?;
        let bound = for_nodes.as_ref().map(BoundSocket::local_address).transpose();
        let bound = bound.map_err(|error| Failure::Other(format!("{error} (`node_listen`)")))?;
        let federation = federate(&server, &folder, &config, for_nodes).await?;
        server.begin_work(server.nodes.run());
        Ok(Self {
            folder,
            server,
            clients,
            metrics,
            for_nodes: bound,
            federation,
            socket,
        })
    }

    /// Serves until `stop` is cancelled or the admin has the node drain, then stores what waits and closes everything.
    pub(super) async fn serve(self, stop: CancellationToken) {
        let Self {
            folder: _folder,
            server,
            clients,
            metrics,
            socket,
            ..
        } = self;
        // No more connections are taken from here on.
        let closing = CancellationToken::new();
        let metrics = async {
            if let Some(metrics) = metrics {
                metrics
                    .serve(
                        health::metrics_router(server.clone()),
                        closing.clone().cancelled_owned(),
                    )
                    .await;
            }
        };
        let stopping = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = server.nodes.asked_to_leave() => {}
            }
            server.drain().await;
            closing.cancel();
            server.stop();
        };
        let clients = clients.serve(router(server.clone()), closing.clone().cancelled_owned());
        tokio::select! {
            _ = async { tokio::join!(stopping, clients, metrics) } => {}
            () = socket.serve(|command| admin::execute(&server, command)) => {}
        }
        server.close().await;
    }
}

/// Scheme, host and port of a listener.
pub(super) fn address_of(listener: &Listener) -> Result<String, Failure> {
    let bound = listener.local_addr();
    let bound = bound.map_err(|error| Failure::Other(format!("cannot tell the bound address: {error}")))?;
    Ok(format!("{}://{bound}", listener.scheme()))
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
