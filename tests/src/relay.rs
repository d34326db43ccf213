//! A bad network between two servers: a UDP relay that loses, delays, doubles and reorders datagrams, or passes none.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

/// What happens to datagrams on their way, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// The share that never arrives, 0 to 1.
    pub lost: f64,
    /// The share that arrives twice, 0 to 1.
    pub doubled: f64,
    /// How long each takes, in milliseconds; where it varies, later ones overtake earlier ones.
    pub delay_ms: Range<u64>,
}

impl Weather {
    /// Everything arrives at once.
    pub const CALM: Self = Self {
        lost: 0.0,
        doubled: 0.0,
        delay_ms: 0..0,
    };

    /// Nothing arrives.
    pub const CUT: Self = Self {
        lost: 1.0,
        ..Self::CALM
    };

    /// A tenth is lost, some come twice, all come late and out of order.
    pub const STORM: Self = Self {
        lost: 0.1,
        doubled: 0.05,
        delay_ms: 1..40,
    };
}

/// The way to one server. It ends when the value goes.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    weather: Mutex<Weather>,
    chance: Mutex<StdRng>,
}

impl Relay {
    /// A relay to a server's address, calm at first. The seed decides which datagrams are lost.
    ///
    /// # Panics
    /// When the system gives no port.
    pub async fn to(server: SocketAddr, seed: u64) -> Self {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            weather: Mutex::new(Weather::CALM),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
        });
        let running = tokio::spawn(forward(socket, server, Arc::clone(&shared))).abort_handle();
        Self {
            address,
            shared,
            running,
        }
    }

    /// Where the server is reached through this relay.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens from now on.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Shared {
    /// After how many milliseconds each copy of one datagram arrives; empty when it is lost.
    fn fate(&self) -> Vec<Duration> {
        let weather = self
            .weather
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        if chance.random_bool(weather.lost) {
            return Vec::new();
        }
        let copies = if chance.random_bool(weather.doubled) { 2 } else { 1 };
        (0..copies)
            .map(|_| match weather.delay_ms.is_empty() {
                true => Duration::ZERO,
                false => Duration::from_millis(chance.random_range(weather.delay_ms.clone())),
            })
            .collect()
    }

    /// Sends a datagram on, once, twice or not at all.
    async fn send(&self, socket: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
        for delay in self.fate() {
            if delay.is_zero() {
                let _ = socket.send_to(datagram, to).await;
                continue;
            }
            let (socket, datagram) = (Arc::clone(socket), datagram.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = socket.send_to(&datagram, to).await;
            });
        }
    }
}

/// Passes datagrams of everybody on to the server, each caller's from a socket of its own, and its answers back.
async fn forward(socket: Arc<UdpSocket>, server: SocketAddr, shared: Arc<Shared>) {
    let mut callers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        // A port that nobody listens on any more makes the next call fail: that is the weather, too.
        let Ok((length, caller)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let towards = match callers.get(&caller) {
            Some(towards) => Arc::clone(towards),
            None => {
                let towards = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                callers.insert(caller, Arc::clone(&towards));
                answers.spawn(answer(
                    Arc::clone(&towards),
                    Arc::clone(&socket),
                    caller,
                    Arc::clone(&shared),
                ));
                towards
            }
        };
        shared.send(&towards, server, &buffer[..length]).await;
    }
}

async fn answer(from: Arc<UdpSocket>, socket: Arc<UdpSocket>, caller: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    loop {
        if let Ok((length, _)) = from.recv_from(&mut buffer).await {
            shared.send(&socket, caller, &buffer[..length]).await;
        }
    }
}
