//! The program `maru`.

use std::process::ExitCode;

/// Keeps idle connections small: less is lost to fragmentation than with the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Whatever is written holds messages or keys, and is for the server's user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Two implementations of TLS cryptography are linked; whoever does not choose one gets this.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    maru::cli::run()
}
