//! Arguments to exit code; everything else is in the library.

use std::process::ExitCode;

/// Many small, short-lived values of a request's own: `benches/README.md` has what it saves.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: a TLS client that is made earlier would find no provider and panic.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return ExitCode::from(2);
    }
    trunkline::cli::run(std::env::args_os())
}
