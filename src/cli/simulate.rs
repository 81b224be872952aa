//! What `trunkline mock` and `trunkline trigger` need of the world: the deployment, the network, signals.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::mock::{MockArgs, Surroundings};
use super::output::Output;
use super::trigger::{Tools, TriggerArgs};
use super::{Common, Ended, deployment, mock as services, trigger as events};
use crate::base::clock::SystemClock;
use crate::base::random::SystemRandom;
use crate::base::secret::Secret;
use crate::definition::load::environment::{Environment as _, ProcessEnvironment};
use crate::mock::Simulated;
use crate::net::resolve::{Resolver, SystemDns};
use crate::net::trust::Trust;
use crate::net::{Clients, Dialer};
use crate::telemetry::log::{Format, Log};

/// Runs `trunkline mock` until it is told to stop.
pub fn mock(common: &Common, arguments: &MockArgs) -> anyhow::Result<Ended> {
    let path = arguments.dir.as_deref().unwrap_or(&common.config);
    let simulated = simulated(path)?;
    let _log = Log::start(Format::Text, io::IsTerminal::is_terminal(&io::stderr()), "info")?;
    let surroundings = Surroundings {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom::default()),
        app_secret: ProcessEnvironment.variable(&arguments.app_secret).ok().map(Secret::new),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(services::run(arguments, &simulated, surroundings, Box::new(io::stdout()), stopped))?;
    Ok(Ended::Done)
}

/// Runs `trunkline trigger`.
pub fn trigger(common: &Common, arguments: &TriggerArgs, output: &mut Output) -> anyhow::Result<Ended> {
    let path = arguments.dir.as_deref().unwrap_or(&common.config);
    let (_, generation) = deployment::read(path, &ProcessEnvironment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let accepted = runtime.block_on(async {
        let clock = Arc::new(SystemClock::new());
        let resolver = Resolver::new(Arc::new(SystemDns::new()?), Arc::clone(&clock) as _);
        let clients = Clients::new(Arc::new(Dialer::new(resolver, None)), Trust::of_system());
        let random = SystemRandom::default();
        let tools = Tools { clients: &clients, clock: &*clock, random: &random };
        events::run(arguments, &generation, &tools, output).await
    })?;
    Ok(if accepted { Ended::Done } else { Ended::No })
}

/// The deployment's services with their resolved documents.
fn simulated(path: &Path) -> anyhow::Result<Vec<Simulated>> {
    let (read, generation) = deployment::read(path, &ProcessEnvironment)?;
    let of = |definition: &Arc<crate::definition::workspace::Definition<crate::definition::plan::Integration>>| {
        let (id, _) = definition.id.as_ref()?;
        let resolved = definition.document.as_ref()?.value.clone();
        Some(Simulated { integration: Arc::clone(generation.integration(id)?), resolved })
    };
    let simulated: Vec<_> = read.integrations.iter().filter_map(of).collect();
    anyhow::ensure!(!simulated.is_empty(), "no definition here can be simulated: see `trunkline check`");
    Ok(simulated)
}

async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
