//! The disk fills up: clear errors, the server stays up, and goes on when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use maru_tests::{Data, Engine, TestProcess};
use serde_json::json;

/// Size of the disk.
const SIZE: &str = "32m";

/// A small disk, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it over a folder; `None` without the right to.
    fn mount(folder: &Path) -> Option<Self> {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=700"), "maru-test"])
            .arg(folder);
        let mounted = command.status().is_ok_and(|status| status.success());
        mounted.then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Writes until not one byte more fits.
fn fill(path: &Path) {
    let mut ballast = File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while ballast.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_not_an_end() {
    let data = Data::new(Engine::Sqlite);
    let Some(disk) = SmallDisk::mount(data.folder()) else {
        println!("SKIPPED: a small disk needs the right to mount (tests/run has it as root)");
        return;
    };
    let ballast = disk.0.join("ballast");
    let mut process = TestProcess::start_on(data, &[]).await;
    let alice = process.user("alice").await;
    let room = alice.create_room(json!({ "name": "full" })).await;
    let mut kept = vec![alice.send(&room, "while there is room").await];

    fill(&ballast);
    // The log of the database has room of its own for some commits.
    let content = json!({ "msgtype": "m.text", "body": "x".repeat(50_000) });
    let refused = loop {
        let reply = alice
            .send_as(&room, "m.room.message", &alice.transaction(), content.clone())
            .await;
        if reply.status != 200 {
            break reply;
        }
        assert!(kept.len() < 2_000, "the disk does not fill up");
        kept.push(reply.json["event_id"].as_str().unwrap().to_owned());
    };
    refused.refused(503, "M_UNKNOWN");
    for _ in 0..20 {
        let reply = alice
            .send_as(&room, "m.room.message", "the same", content.clone())
            .await;
        reply.refused(503, "M_UNKNOWN");
    }
    assert!(process.is_running(), "{}", process.log());
    assert_eq!(ids(&alice.history(&room).await), kept, "reading goes on");

    fs::remove_file(&ballast).unwrap();
    let reply = alice.send_as(&room, "m.room.message", "the same", content).await;
    kept.push(reply.ok()["event_id"].as_str().unwrap().to_owned());
    assert_eq!(ids(&alice.history(&room).await), kept);

    process.kill().await;
    let process = process.restart().await;
    let alice = alice.on(process.api());
    assert_eq!(
        ids(&alice.history(&room).await),
        kept,
        "and nothing of it is lost in a crash"
    );
    drop(process);
    drop(disk);
}

/// The ids of the messages among some events.
fn ids(events: &[serde_json::Value]) -> Vec<String> {
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages
        .map(|event| event["event_id"].as_str().unwrap().to_owned())
        .collect()
}
