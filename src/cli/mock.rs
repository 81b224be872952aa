//! `trunkline mock`: this deployment's services, simulated on loopback, and the application it delivers
//! to.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;

use super::mock_state::Kept;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::base::units::parse_duration;
use crate::mock::app::App;
use crate::mock::{Consent, Controls, Faults, Mock, Simulated};

/// Simulates every service of this deployment on one address.
///
/// A gateway started with `serve --mock http://ADDRESS` sends all its calls here, and people who connect an account
/// are sent here to consent. Definitions are read once, at the start: start it again after you change one. A service is also reached by its id, as in `http://127.0.0.1:9400/stripe/v1/balance`.
///
/// Services that sign in by OAuth 2.0 want an access token that they issued. One for trying things by hand:
/// `curl -d '{"issue":true}' http://127.0.0.1:9400/-/oauth/github`. The same address takes `expire`, `revoke`,
/// `consent`, `fail` and `delay`, and tells what was issued so far. Of other services it takes `accept` (the one key,
/// `NAME:PASSWORD`, or word of a sign-in that is right from then on), `revoke`, `expire` (sessions) and `consent`
/// (OAuth 1.0a).
#[derive(Debug, Clone, Args)]
pub struct MockArgs {
    /// The deployment's directory or gateway file [default: what --config says]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the services are.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9400")]
    pub listen: SocketAddr,
    /// Plays your application as well: takes deliveries here, checks their signature, prints them.
    #[arg(long, value_name = "ADDRESS")]
    pub app: Option<SocketAddr>,
    /// The variable that holds the application's signing secret.
    #[arg(long, value_name = "NAME", default_value = "APP_WEBHOOK_SECRET")]
    pub app_secret: String,
    /// How long every answer takes, such as `200ms`.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0ms")]
    pub latency: Duration,
    /// The share of calls answered with 503, from 0 to 1.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    pub error_rate: f64,
    /// The share of calls whose connection breaks in the middle of the answer, from 0 to 1.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.0)]
    pub reset_rate: f64,
    /// What becomes of those who sign in: `asked` on a page, `granted` or `denied` at once.
    #[arg(long, value_name = "HOW", value_parser = consent, default_value = "asked")]
    pub consent: Consent,
    /// A file that keeps what was issued, so that accounts connected to an earlier run still work. It holds the simulated
    /// tokens in the clear.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

impl MockArgs {
    fn controls(&self) -> Controls {
        let Self { latency, error_rate, reset_rate, consent, .. } = *self;
        Controls { faults: Faults { latency, error_rate, reset_rate, ..Faults::default() }, consent }
    }
}

fn consent(text: &str) -> Result<Consent, String> {
    match text {
        "asked" => Ok(Consent::Asked),
        "granted" => Ok(Consent::Granted),
        "denied" => Ok(Consent::Denied),
        _ => Err("expected `asked`, `granted` or `denied`".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("expected a number from 0 to 1".to_owned()) }
}

/// What the command needs from outside.
#[derive(Debug)]
pub struct Surroundings {
    /// What limits are counted by.
    pub clock: Arc<dyn Clock>,
    /// What faults are drawn from.
    pub random: Arc<dyn Random>,
    /// The application's signing secret, where the variable is set.
    pub app_secret: Option<Secret>,
}

/// Runs the command until `stop` is ready.
///
/// # Errors
/// When an address cannot be listened at, the application's secret is missing, or the state file holds something else.
pub async fn run<S>(
    args: &MockArgs,
    services: &[Simulated],
    surroundings: Surroundings,
    out: Box<dyn Write + Send>,
    stop: impl Fn() -> S,
) -> anyhow::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let random = Arc::clone(&surroundings.random);
    let mock = Arc::new(Mock::new(services, args.controls(), Arc::clone(&surroundings.clock), random));
    let kept = args.state.as_deref().map(|path| Kept::open(Arc::clone(&mock), path)).transpose()?;
    let ids: Vec<_> = services.iter().map(|service| service.integration.id.as_ref()).collect();
    let serving = serve(args, (mock, ids.join(", ")), surroundings, out, stop);
    let Some(mut kept) = kept else { return serving.await };
    let ended = tokio::select! {
        ended = serving => ended,
        never = kept.follow() => match never {},
    };
    kept.keep();
    ended
}

async fn serve<S>(
    args: &MockArgs,
    (mock, ids): (Arc<Mock>, String),
    surroundings: Surroundings,
    mut out: Box<dyn Write + Send>,
    stop: impl Fn() -> S,
) -> anyhow::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let Surroundings { clock, app_secret, .. } = surroundings;
    let listen = |address: SocketAddr| async move {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))
    };
    let listener = listen(args.listen).await?;
    writeln!(out, "mock: {ids} at http://{}", listener.local_addr()?)?;
    writeln!(out, "mock: definitions are read once, now: start it again after you change one")?;
    let Some(address) = args.app else { return Ok(mock.serve(listener, stop()).await?) };
    let secret = app_secret.with_context(|| {
        format!("`--app` checks signatures with the secret in {}, which is not set", args.app_secret)
    })?;
    let app_listener = listen(address).await?;
    writeln!(out, "mock: your application at http://{}", app_listener.local_addr()?)?;
    let app = Arc::new(App::new(secret, clock, out));
    tokio::try_join!(mock.serve(listener, stop()), app.serve(app_listener, stop()))?;
    Ok(())
}
