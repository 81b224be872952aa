//! `trunkline serve`: the gateway, until it is told to stop.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::Output;
use super::{Common, Ended};
use crate::app::{App, Options, Running, Seams, StartError};
use crate::base::units::parse_duration;
use crate::definition::live::Generation;
use crate::telemetry::log::{self, Format, Log};
use crate::telemetry::metrics::Metrics;

/// How often dropped log lines are added to their metric.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// How to run the gateway.
#[derive(Debug, Args)]
pub struct Serve {
    /// Development mode whatever the settings say: a key made by itself, plain HTTP to loopback
    #[arg(long)]
    dev: bool,
    /// Send every service's traffic to `trunkline mock` at this address; development mode only
    #[arg(long, value_name = "URL", value_parser = mock_address)]
    mock: Option<SocketAddr>,
    /// How the log looks; text on a terminal and JSON otherwise, unless said
    #[arg(long, value_enum, default_value_t = LogFormat::Auto, env = "TRUNKLINE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or `target=level` separated by commas
    #[arg(long, default_value = "info", env = "TRUNKLINE_LOG", value_name = "FILTER")]
    log: String,
    /// How long requests and deliveries under way may take after SIGTERM or SIGINT
    #[arg(long, value_parser = parse_duration, default_value = "25s", value_name = "DURATION")]
    drain: Duration,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// The mock's address. It is plain HTTP by nature, so only host and port count.
fn mock_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    address.parse().map_err(|_| "expected http://ADDRESS:PORT, as `trunkline mock` prints it".to_owned())
}

/// Runs the gateway.
pub fn run(common: &Common, arguments: &Serve, output: &mut Output) -> anyhow::Result<Ended> {
    let format = match arguments.log_format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let log = Log::start(format, io::stderr().is_terminal(), &arguments.log)?;
    let seams = Seams::of_system()?;
    count_panics(&seams.metrics);
    raise_descriptors();
    let options = Options {
        gateway: common.config.clone(),
        development: arguments.dev,
        mock: arguments.mock,
        seams: seams.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("trunkline").build()?;
    let ended = runtime.block_on(async {
        let counting = tokio::spawn(count_dropped(log.dropped(), Arc::clone(&seams.metrics)));
        let ended = serve(options, arguments.drain, output).await;
        counting.abort();
        ended
    });
    // What still blocks after the drain, such as a file system that hangs, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(log);
    match ended {
        Ok(ended) => Ok(ended),
        Err(error @ StartError::Configuration(_)) => {
            output.note(error);
            Ok(Ended::No)
        }
        Err(error) => Err(error).context("the gateway did not start"),
    }
}

async fn serve(options: Options, grace: Duration, output: &mut Output) -> Result<Ended, StartError> {
    // Before anything that lasts: a signal during the start must end the program in order, too.
    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = App::start(options) => started?,
        () = signals.next() => return Ok(Ended::Done),
    };
    announce(&started);
    invite(&started, output);
    signals.next().await;
    tracing::info!("stopping: requests under way have {} s; a second signal ends at once", grace.as_secs());
    tokio::select! {
        stopped = started.stop(grace) => {
            tracing::info!(
                connections.cut = stopped.cut_connections,
                deliveries.ended = stopped.deliveries_ended,
                "stopped",
            );
            Ok(Ended::Done)
        }
        () = signals.next() => {
            tracing::warn!("stopped at once by a second signal");
            Ok(Ended::No)
        }
    }
}

/// Where nobody has a password yet, whoever started the gateway is signed in by a link. It is a credential, so that
/// it goes to a terminal and into no log.
fn invite(running: &Running, output: &mut Output) {
    let Some(page) = running.page() else { return };
    let link = running.sign_in_link().filter(|_| io::stderr().is_terminal());
    if let Some(link) = link {
        output.note(format_args!("\nOpen the page, signed in, within 15 minutes: {}\n", link.expose()));
    } else {
        tracing::info!("the page is at {page}; `trunkline sign-in` prints a link that signs in");
    }
}

fn announce(running: &Running) {
    let generation = running.live().load();
    tracing::info!(door = "public", "listening on {} for webhooks", running.public());
    tracing::info!(door = "proxy", "listening on {} for the application's calls", running.proxy());
    tracing::info!(door = "admin", "listening on {} for people, scripts and Prometheus", running.admin());
    warn_of_descriptors(&generation);
}

/// SIGTERM and SIGINT, as one stream.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(|error| StartError::Broken(error.to_string()));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Every panic is logged and counted, also those that a task's boundary catches.
fn count_panics(metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    std::panic::set_hook(Box::new(move |info| {
        metrics.panics.with_label_values(&["process"]).inc();
        log::on_panic(info);
    }));
}

async fn count_dropped(dropped: Arc<AtomicU64>, metrics: Arc<Metrics>) {
    let counter = metrics.log_lines_dropped.with_label_values::<&str>(&[]);
    loop {
        tokio::time::sleep(COUNTED_EVERY).await;
        counter.inc_by(dropped.load(Ordering::Relaxed).saturating_sub(counter.get()));
    }
}

/// Takes as many file descriptors as this process may have: doors hold at most half of them.
fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        if let Err(error) = raised {
            tracing::info!("the limit of file descriptors stays as it is: {error}");
        }
    }
}

fn warn_of_descriptors(generation: &Generation) {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return };
    let wanted = generation.gateway.limits.connections;
    if wanted as u64 > descriptors / 2 {
        tracing::warn!(
            "`limits.connections` is {wanted}, and with {descriptors} file descriptors a door holds at most {}: raise \
             LimitNOFILE or ulimit -n",
            descriptors / 2
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mock_is_named_by_its_address() {
        assert_eq!(mock_address("http://127.0.0.1:9400/").map(|address| address.port()), Ok(9400));
        assert_eq!(mock_address("[::1]:9400").map(|address| address.port()), Ok(9400));
        assert!(mock_address("https://127.0.0.1:9400").is_err() && mock_address("localhost").is_err());
    }
}
