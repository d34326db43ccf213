//! The program `maru`.

use std::process::ExitCode;

/// Keeps idle connections small: less is lost to fragmentation than with the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What connections have given back goes to the system within seconds, not within tens of them. The allocator looks for
/// its settings under this name.
#[allow(unsafe_code, reason = "a name that nothing else in the program has")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 20] = b"dirty_decay_ms:1000\0";

fn main() -> ExitCode {
    // Whatever is written holds messages or keys, and is for the server's user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Two implementations of TLS cryptography are linked; whoever does not choose one gets this.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    maru::cli::run()
}
