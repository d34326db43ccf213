//! `maru doctor`: checks that a server can run here, one line for each thing checked.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use maru_federation::quic::BoundSocket;

use super::{Failure, Flags};
use crate::admin::{self, AdminCommand, AdminReply, PeerCommand};
use crate::config::{Config, MediaStorage};
use crate::data_folder::{DataFolder, Keys};
use crate::http::transport::tls::{Certificates, TlsFiles};
use crate::observe::process;
use crate::server;
use crate::store::SCHEMA_VERSION;
use crate::store::backup::schema_version;

/// Free space under which a server is in danger, in bytes.
const LEAST_FREE: u64 = 256 << 20;
/// Median time of a durable write over which every message is slow.
const SLOWEST_WRITE: Duration = Duration::from_millis(20);
/// Durable writes tried.
const WRITES: usize = 21;
/// Open files under which a server soon refuses clients.
const FEWEST_FILES: u64 = 4096;

/// What was found: a line that says why all is well, or what is wrong.
type Finding = Result<String, String>;

pub(super) async fn run(flags: Flags) -> Result<(), Failure> {
    let loaded = flags.load()?;
    let config = &loaded.config;
    let unknown = match loaded.unknown_variables.as_slice() {
        [] => Ok("every value can be used".to_owned()),
        some => Err(format!("these variables name no key: {}", some.join(", "))),
    };
    let findings = [
        ("configuration", unknown),
        ("certificates", certificates(config)),
        ("data folder", data_folder(&config.data)),
        ("keys", keys(config)),
        ("server", in_use(&config.data)),
        ("database", database(config).await),
        ("media", media(config).await),
        ("clock", clock(&config.data)),
        ("durable writes", durable_writes(&config.data)),
        ("free space", free_space(&config.data)),
        ("open files", open_files(config)),
        ("federation", federation(config)),
        ("links of nodes", node_links(config)),
        ("peers", peers(config).await),
    ];
    let mut wrong = 0;
    for (what, finding) in findings {
        match finding {
            Ok(line) => say!("ok     {what}: {line}"),
            Err(line) => {
                wrong += 1;
                say!("WRONG  {what}: {line}");
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::Other("one thing is wrong".to_owned())),
        more => Err(Failure::Other(format!("{more} things are wrong"))),
    }
}

fn certificates(config: &Config) -> Finding {
    match TlsFiles::configured(&config.tls) {
        None => Ok("none, the client API speaks plain HTTP".to_owned()),
        Some(files) => match Certificates::load(files) {
            Ok(_) => Ok("certificate and key fit".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn data_folder(path: &Path) -> Finding {
    let folder = existing(path);
    if folder != path {
        return match writable(&folder) {
            Ok(()) => Ok(format!("{} will be made", path.display())),
            Err(error) => Err(format!("{} cannot be made: {error}", path.display())),
        };
    }
    writable(path).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    let mode = fs::metadata(path)
        .map_err(|error| error.to_string())?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{} is open to other users (mode {mode:o}); use chmod 700",
            path.display()
        ));
    }
    Ok(format!("{} is private and can be written", path.display()))
}

/// The folder, or the nearest one above it that exists.
fn existing(path: &Path) -> PathBuf {
    let above = path
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new(""));
    if above.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        above.to_owned()
    }
}

fn writable(folder: &Path) -> std::io::Result<()> {
    let path = scratch(folder);
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

fn scratch(folder: &Path) -> PathBuf {
    folder.join(format!(".doctor-{:016x}", rand::random::<u64>()))
}

fn keys(config: &Config) -> Finding {
    let files = DataFolder::keys_in(&config.data);
    if files.iter().any(|file| !file.exists()) {
        return Ok("will be made".to_owned());
    }
    for file in files.into_iter().chain(DataFolder::old_keys_in(&config.data)) {
        let mode = fs::metadata(&file)
            .map_err(|error| error.to_string())?
            .permissions()
            .mode()
            & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "{} is open to other users (mode {mode:o}); use chmod 600",
                file.display()
            ));
        }
    }
    let named =
        Keys::load_or_make(&config.data).and_then(|keys| keys.server_name(config.server_name.as_deref()));
    named
        .map(|name| format!("this is {name}"))
        .map_err(|error| error.to_string())
}

fn in_use(data: &Path) -> Finding {
    if !data.is_dir() {
        return Ok("none runs on this folder".to_owned());
    }
    match DataFolder::is_in_use(data) {
        Ok(false) => Ok("none runs on this folder".to_owned()),
        Ok(true) if DataFolder::admin_socket_in(data).exists() => Ok("runs".to_owned()),
        Ok(true) => Err("a process holds the folder but has no admin socket".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn database(config: &Config) -> Finding {
    let version = schema_version(&super::database(config)).await;
    match version.map_err(|error| format!("{}: {error}", config.database))? {
        None => Ok(format!("{}, to be made", config.database)),
        Some(found) => Ok(format!(
            "{}, schema version {found} of {SCHEMA_VERSION}",
            config.database
        )),
    }
}

/// Where media lie; a bucket is tried.
async fn media(config: &Config) -> Finding {
    server::media_storage(config).await?;
    Ok(match &config.media.bucket {
        Some(bucket) if config.media.storage == MediaStorage::S3 => format!("bucket {bucket}"),
        _ => "in the data folder".to_owned(),
    })
}

/// A clock that went back makes new events older than stored ones.
fn clock(data: &Path) -> Finding {
    let now = SystemTime::now();
    let files = fs::read_dir(data).into_iter().flatten().flatten();
    let newest = files
        .filter_map(|file| file.metadata().ok()?.modified().ok())
        .max();
    let ahead = newest
        .and_then(|newest| newest.duration_since(now).ok())
        .unwrap_or_default();
    if ahead > Duration::from_secs(60) {
        return Err(format!(
            "{} s behind the newest file in the data folder",
            ahead.as_secs()
        ));
    }
    Ok("not behind the stored data".to_owned())
}

fn durable_writes(data: &Path) -> Finding {
    let folder = existing(data);
    let path = scratch(&folder);
    let measured = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut times = Vec::with_capacity(WRITES);
        for _ in 0..WRITES {
            let begun = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort();
        Ok::<_, std::io::Error>(times.get(WRITES / 2).copied().unwrap_or_default())
    })();
    let _ = fs::remove_file(&path);
    match measured {
        Ok(median) if median > SLOWEST_WRITE => {
            Err(format!("take {median:.1?} at the median: the disk is slow"))
        }
        Ok(median) => Ok(format!("take {median:.1?} at the median")),
        Err(error) => Err(error.to_string()),
    }
}

fn free_space(data: &Path) -> Finding {
    let disk = rustix::fs::statvfs(existing(data)).map_err(|error| error.to_string())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let line = format!("{} MiB", free >> 20);
    if free < LEAST_FREE { Err(line) } else { Ok(line) }
}

fn open_files(config: &Config) -> Finding {
    match process::raise_open_files() {
        Ok(None) => Ok("no bound".to_owned()),
        Ok(Some(allowed)) if allowed < FEWEST_FILES => {
            Err(format!("only {allowed} allowed; raise `ulimit -n`"))
        }
        Ok(Some(allowed)) => {
            let connections = process::connections_within(config.limits.connections, Some(allowed));
            Ok(format!(
                "{allowed} allowed, which makes {connections} connections"
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether other homeservers can come in, as far as this machine knows.
fn federation(config: &Config) -> Finding {
    let Some(address) = config.federation_listen else {
        return Ok("off: `federation_listen` is not set".to_owned());
    };
    if DataFolder::is_in_use(&config.data).unwrap_or(false) {
        return Ok(format!("{address}, UDP, is the running server's"));
    }
    BoundSocket::bind(address).map_err(|error| error.to_string())?;
    if config.federation.addresses.is_empty() {
        return Ok(format!(
            "{address}, UDP, can be bound; the server record names no address, see `federation.addresses`"
        ));
    }
    Ok(format!("{address}, UDP, can be bound"))
}

/// Whether other nodes of this homeserver can come in.
fn node_links(config: &Config) -> Finding {
    let Some(address) = config.node_listen else {
        return Ok("off: `node_listen` is not set".to_owned());
    };
    if config.node_link_address.is_none() && address.ip().is_unspecified() {
        return Err(format!(
            "{address} is nowhere others come to: set `node_link_address`"
        ));
    }
    if DataFolder::is_in_use(&config.data).unwrap_or(false) {
        return Ok(format!("{address}, UDP, is the running server's"));
    }
    BoundSocket::bind(address).map_err(|error| error.to_string())?;
    Ok(format!("{address}, UDP, can be bound"))
}

/// What the running server says of its peers.
async fn peers(config: &Config) -> Finding {
    let list = AdminCommand::Peer(PeerCommand::List);
    let configured = config.federation.peers.iter().count();
    let reply = admin::send(&DataFolder::admin_socket_in(&config.data), &list).await;
    let Ok(AdminReply::Peers { peers, .. }) = reply else {
        return Ok(format!("{configured} in the configuration"));
    };
    let refused: Vec<_> = peers.iter().filter(|peer| peer.refused.is_some()).collect();
    if let Some(peer) = refused.first() {
        let count = refused.len();
        return Err(format!(
            "another root key under {count} names, {} first: see `maru peer list`",
            peer.name
        ));
    }
    let connected = peers.iter().filter(|peer| peer.state == "connected").count();
    Ok(format!("{connected} of {} connected", peers.len()))
}
