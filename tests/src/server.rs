//! The real server in this process: everything but sockets, and those too where a test needs them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use http::Method;
use maru::clock::Clock;
use maru::config::{Config, Registration};
use maru::data_folder::Keys;
use maru::http::transport::listener::{Listener, ListenerOptions};
use maru::identity::Identity;
use maru::rooms::Room;
use maru::server::{OpenError, Server};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{Api, Backup, Data, Engine, Reply, User};

/// A socket on which a [`TestServer`] listens, for as long as this value lives.
#[derive(Debug)]
pub struct Listening {
    /// Scheme and authority, for example `http://127.0.0.1:12345`.
    pub base: String,
    /// Where requests go that are to come through the socket.
    pub api: Api,
    _stop: oneshot::Sender<()>,
}

/// A running server without ports. Anybody may register, and no rate is limited.
#[derive(Debug)]
pub struct TestServer {
    server: Arc<Server>,
    api: Api,
    config: Box<Config>,
    data: Data,
    pub(crate) federation: OnceLock<SocketAddr>,
}

/// A server that was shut down, with what it keeps.
#[derive(Debug)]
pub struct Stopped {
    config: Box<Config>,
    data: Data,
}

impl Stopped {
    /// Starts it again on the same data; users go on with [`User::on`].
    pub async fn start(self) -> TestServer {
        self.start_at(Clock::System).await
    }

    /// Starts it again at another time.
    pub async fn start_at(self, clock: Clock) -> TestServer {
        Box::pin(TestServer::open(*self.config, self.data, clock)).await
    }

    /// Starts it again on the same data, or says why it does not start.
    ///
    /// # Errors
    /// What opening it met.
    pub async fn try_start(self) -> Result<TestServer, OpenError> {
        Box::pin(TestServer::try_open(*self.config, self.data, Clock::System)).await
    }

    /// What it keeps.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Changes its configuration.
    pub fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Backs it up.
    pub async fn back_up(&self) -> Backup {
        Backup::of(&self.data).await
    }

    /// Loses what it has and goes back to a backup.
    pub async fn restore(self, backup: Backup) -> Self {
        let data = backup.restore().await;
        let config = Config {
            data: data.folder().to_owned(),
            ..*self.config
        };
        Self {
            config: Box::new(config),
            data,
        }
    }
}

impl TestServer {
    /// A server with empty data on the embedded database.
    pub async fn start() -> Self {
        Self::start_on(Engine::Sqlite).await
    }

    /// Several of them.
    pub async fn start_several<const N: usize>() -> [Self; N] {
        let starting = std::array::from_fn::<_, N, _>(|_| Self::start());
        join_all(starting).await.try_into().unwrap()
    }

    /// A server with empty data on that engine.
    pub async fn start_on(engine: Engine) -> Self {
        Self::start_with(engine, |_| {}).await
    }

    /// A server whose configuration is changed before it starts.
    pub async fn start_with(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        let data = Data::new(engine);
        let mut config = Config {
            data: data.folder().to_owned(),
            registration: Registration::Open,
            rate_limits: false,
            ..Config::default()
        };
        change(&mut config);
        // Boxed: opening a server holds much, and tests hold several of these.
        Box::pin(Self::open(config, data, Clock::System)).await
    }

    /// Another node of this homeserver, on the same PostgreSQL database.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_node(&self, name: &str) -> Self {
        self.try_start_node(name).await.unwrap()
    }

    /// Another node whose configuration is changed before it starts.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_node_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Self {
        self.open_node(name, change).await.unwrap()
    }

    /// The same, or why it does not start.
    ///
    /// # Errors
    /// What opening the database met.
    ///
    /// # Panics
    /// When `name` is no name of a node.
    pub async fn try_start_node(&self, name: &str) -> Result<Self, OpenError> {
        self.open_node(name, |_| {}).await
    }

    async fn open_node(&self, name: &str, change: impl FnOnce(&mut Config)) -> Result<Self, OpenError> {
        let data = self.data.beside();
        let mut config = Config {
            data: data.folder().to_owned(),
            node_name: name.parse().unwrap(),
            ..(*self.config).clone()
        };
        change(&mut config);
        Box::pin(Self::try_open(config, data, Clock::System)).await
    }

    async fn open(config: Config, data: Data, clock: Clock) -> Self {
        Self::try_open(config, data, clock).await.unwrap()
    }

    async fn try_open(config: Config, data: Data, clock: Clock) -> Result<Self, OpenError> {
        // What servers say is shown where it is asked for.
        if std::env::var("RUST_LOG").is_ok() {
            maru::observe::logging::init(&maru::config::Config::default().log);
        }
        let keys = Keys::load_or_make(data.folder()).unwrap();
        let identity = Identity {
            server_name: keys.server_name(config.server_name.as_deref()).unwrap(),
            signing_key: keys.signing,
        };
        let server = Box::pin(Server::open(config.clone(), data.database(), identity, clock)).await?;
        server.begin_work(server.nodes.run());
        Ok(Self {
            api: Api::InProcess(maru::http::router(Arc::clone(&server))),
            server,
            config: Box::new(config),
            data,
            federation: OnceLock::new(),
        })
    }

    /// Stops the server in order.
    pub async fn shut_down(self) -> Stopped {
        let Self {
            server, config, data, ..
        } = self;
        server.stop();
        server.close().await;
        drop(server);
        Stopped { config, data }
    }

    /// Stops the server in order and starts it again on the same data; users go on with [`User::on`].
    pub async fn restart(self) -> Self {
        // Boxed for the same reason.
        Box::pin(async move { self.shut_down().await.start().await }).await
    }

    /// Listens on a free port of this machine, as the configuration says: for what needs connections.
    ///
    /// # Panics
    /// When the system gives no port.
    pub async fn listen(&self) -> Listening {
        let options = ListenerOptions::configured(&self.config);
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None, options)
            .await
            .unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let router = maru::http::router(Arc::clone(&self.server));
        tokio::spawn(listener.serve(router, async {
            let _ = stopped.await;
        }));
        Listening {
            api: Api::http(&base),
            base,
            _stop: stop,
        }
    }

    /// The server's parts.
    #[must_use]
    pub fn parts(&self) -> &Arc<Server> {
        &self.server
    }

    /// The server's replica of a room.
    ///
    /// # Panics
    /// When it has none.
    pub async fn replica(&self, room: &str) -> Arc<Room> {
        let replica = self.server.rooms.repository.room(room.try_into().unwrap()).await;
        replica.unwrap()
    }

    /// Where requests go.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What the server keeps.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.server.identity.server_name.as_str()
    }

    /// Registers a user.
    pub async fn user(&self, name: &str) -> User {
        self.api.register(name).await
    }

    /// A request without a token.
    pub async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.api.request(method, path, None, body).await
    }
}
