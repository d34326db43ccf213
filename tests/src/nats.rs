//! A NATS server for tests, which may be killed, stopped, started again, and told anything by anybody.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::waiting::look_for;

/// Where Debian and Ubuntu put the program, which is on no user's path there.
const PROGRAMS: [&str; 2] = ["/usr/sbin/nats-server", "/usr/bin/nats-server"];

/// A running `nats-server` on loopback. It is killed when the value goes.
#[derive(Debug)]
pub struct NatsServer {
    port: u16,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let mut server = Self::absent();
        server.restart().await;
        server
    }

    /// The address of one that is not there yet.
    ///
    /// # Panics
    /// When the system gives no port.
    #[must_use]
    pub fn absent() -> Self {
        // It cannot be told to take a free port and say which; so one that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self {
            port: free.local_addr().unwrap().port(),
            child: None,
        }
    }

    /// Where it is, as the configuration says it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it where it was, or is to be, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self) {
        let installed = PROGRAMS.iter().find(|program| Path::new(program).exists());
        let mut command = Command::new(installed.copied().unwrap_or("nats-server"));
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn();
        self.child = Some(child.expect("nats-server (Debian and Ubuntu: apt install nats-server)"));
        look_for("NATS answers", async || {
            let connected = TcpStream::connect(self.address()).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Ends it without warning (SIGKILL).
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Stops it where it is (SIGSTOP), until [`NatsServer::resume`].
    pub fn pause(&self) {
        kill_process(self.id(), Signal::STOP).unwrap();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        kill_process(self.id(), Signal::CONT).unwrap();
    }

    fn id(&self) -> Pid {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Says something on a subject, as any client of it may.
    ///
    /// # Panics
    /// When it does not take it.
    pub async fn publish(&self, subject: &str, payload: &[u8]) {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let head = format!(
            "CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n",
            payload.len()
        );
        let message = [head.as_bytes(), payload, b"\r\nPING\r\n"].concat();
        stream.write_all(&message).await.unwrap();
        let mut line = String::new();
        while line.trim() != "PONG" {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "it hangs up");
            assert!(!line.starts_with("-ERR"), "{line}");
        }
    }
}
