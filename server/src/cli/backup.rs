//! `maru backup` and `maru restore`.

use std::path::Path;

use super::{Failure, Flags};
use crate::backup;
use crate::config::MediaStorage;

pub(super) async fn back_up(into: &Path, flags: Flags) -> Result<(), Failure> {
    let config = flags.load()?.config;
    let name = config.server_name.as_deref();
    let manifest = backup::back_up(&config.data, &config.database, name, into).await?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    say!(
        "backed up {}: {} files, {bytes} bytes",
        manifest.server_name,
        manifest.files.len()
    );
    if manifest.database == "postgres" {
        say!(
            "the database is not in the backup: run pg_dump, and run it first, so that no media are missing"
        );
    }
    if config.media.storage == MediaStorage::S3 {
        say!("media in the bucket are not in the backup: copy the bucket, after the database");
    }
    Ok(())
}

pub(super) async fn restore(from: &Path, flags: Flags) -> Result<(), Failure> {
    let config = flags.load()?.config;
    let manifest = backup::restore(from, &config.data, &config.database).await?;
    say!("restored {} into {}", manifest.server_name, config.data.display());
    Ok(())
}
