//! The program put together: every part made once, in order, with every seam a parameter.
//!
//! [`App::start`] opens the store, puts the first generation into force, opens the doors and starts the
//! workers; [`Running::stop`] takes it all down again in the opposite order. Both `serve` and the
//! integration tests begin here, so that what is tested is what runs. Nothing here decides anything about
//! a request. Called by `cli` and tests.

mod admin;
mod doors;
mod error;
mod exporting;
pub mod offline;
mod running;
mod samples;
mod state;
mod telling;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::activity::keep::Keeper;
use crate::admin::guard::is_open;
use crate::admin::readiness::{Phase, Readiness};
use crate::base::clock::{Clock, SystemClock};
use crate::base::random::{Random, SystemRandom};
use crate::connection::connect::Connect;
use crate::definition::live::{Generation, Live};
use crate::definition::load::environment::{Environment, ProcessEnvironment};
use crate::definition::plan::gateway::{DoorName, Listen, Mode};
use crate::definition::workspace::{GATEWAY_FILE, Selection};
use crate::net::resolve::{Lookup, SystemDns};
use crate::net::trust::Trust;
use crate::reload::{self, Reloader, Timing};
use crate::secrets::{Outside, SecretStore};
use crate::server::Shared;
use crate::server::tls::Certificates;
use crate::store::disk::{Disk, SystemDisk};
use crate::store::embedded::Embedded;
use crate::telemetry::metrics::Metrics;

use doors::Opened;

pub use error::StartError;
pub use running::Running;

/// How often certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The gateway file, or the directory it is in.
    pub gateway: PathBuf,
    /// Development mode whatever the file says.
    pub development: bool,
    /// Where every service's traffic goes instead; only in development mode.
    pub mock: Option<SocketAddr>,
    /// The world outside.
    pub seams: Seams,
}

/// The world outside, as parameters.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// What references in files are looked up in.
    pub environment: Arc<dyn Environment>,
    /// Names to addresses.
    pub lookup: Arc<dyn Lookup>,
    /// Root certificates.
    pub trust: Trust,
    /// The file system below the store.
    pub disk: Arc<dyn Disk>,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// How quickly changed files are looked at.
    pub timing: Timing,
}

impl Seams {
    /// Those of this machine.
    ///
    /// # Errors
    /// When the system's resolver settings cannot be read, or the list of metrics is faulty.
    pub fn of_system() -> Result<Self, StartError> {
        Ok(Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom::default()),
            environment: Arc::new(ProcessEnvironment),
            lookup: Arc::new(SystemDns::new()?),
            trust: Trust::of_system(),
            disk: Arc::new(SystemDisk),
            metrics: Arc::new(Metrics::new()?),
            timing: Timing::default(),
        })
    }
}

impl Seams {
    /// What a secret store needs of them.
    pub fn outside(&self) -> Outside {
        Outside {
            environment: Arc::clone(&self.environment),
            lookup: Arc::clone(&self.lookup),
            trust: self.trust.clone(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// The program before it runs.
#[derive(Debug)]
pub struct App;

impl App {
    /// Starts everything and returns once every door is open. Must be called within a multi-threaded
    /// runtime. Whatever was started is taken down again when a later step fails.
    ///
    /// # Errors
    /// What stands in the way, in words a person can act on.
    pub async fn start(mut options: Options) -> Result<Running, StartError> {
        let secrets = secret_store(&options)?;
        if let Some(secrets) = &secrets {
            options.seams.environment = Arc::clone(secrets) as Arc<dyn Environment>;
        }
        let seams = options.seams.clone();
        let (reloader, live) = first_generation(&options).await?;
        let generation = live.load();
        let (store, opened) = open(&options, &live, secrets.as_ref()).await?;
        reloader.recorded_in(Arc::clone(&store) as _).await;
        admin::end_sessions(&opened.sign_in, &reloader).await;
        let readiness = Arc::new(Readiness::default());
        let (door, listener) = (opened.admin_parts(&live, &reloader, &readiness, &seams), opened.admin);
        let listen = door.listen.clone();
        let shared =
            Shared { live: Arc::clone(&live), metrics: Arc::clone(&seams.metrics), clock: Arc::clone(&seams.clock) };
        let admin = admin::serve(listener, door, Certificates::of(DoorName::Admin, &shared));
        let stop = CancellationToken::new();
        // It ends with the stop, and a write of it that is under way then is refused by the closed store.
        drop(tokio::spawn(state::tidy(Arc::clone(&store), stop.clone())));
        let watched = reload::watch(Arc::clone(&reloader), reload::Events::System, seams.timing, stop.clone());
        let watching = tokio::spawn(watched);
        if let Some(secrets) = &secrets {
            drop(tokio::spawn(reload_with_secrets(Arc::clone(&reloader), secrets.changed(), stop.clone())));
        }
        let upkeep = upkeep::Upkeep::start(
            &opened.outbound,
            keeper(&opened.activity, (&live, &store), &seams),
            &opened.webhooks,
            &stop,
        );
        let exporting = exporting::Exporting::start(&generation.gateway, &opened.clients, &seams);
        let (found, about) = ((&live, &store), (&opened.connections, &opened.silence));
        let notices = telling::Telling::start(found, about, &seams, &stop);
        let shown = [opened.public.certificates(), opened.proxy.certificates(), admin.certificates.as_ref()];
        drop(tokio::spawn(look_at_certificates(shown.into_iter().flatten().cloned().collect(), stop.clone())));
        let devices = attend(&opened.connect, &stop);
        readiness.enter(Phase::Serving);
        describe(&seams.metrics, &generation, &listen);
        Ok(Running {
            public: opened.public,
            proxy: opened.proxy,
            admin,
            listen,
            sign_in: opened.sign_in,
            workers: opened.workers,
            activity: opened.activity,
            watching,
            devices,
            upkeep,
            notices,
            exporting,
            stop,
            readiness,
            reloader,
            live,
            store,
            metrics: seams.metrics,
        })
    }
}

/// The store and the doors on it. A store whose doors do not open is closed again.
async fn open(
    options: &Options,
    live: &Arc<Live>,
    secrets: Option<&Arc<SecretStore>>,
) -> Result<(Arc<Embedded>, Opened), StartError> {
    let store = state::open(&live.load().gateway, &options.seams).await?;
    match doors::open(options, live, Arc::clone(&store), secrets).await {
        Ok(opened) => Ok((store, opened)),
        Err(error) => {
            store.close().await;
            Err(error)
        }
    }
}

/// What keeps the activity in bounds.
fn keeper(activity: &Arc<Activity>, (live, store): (&Arc<Live>, &Arc<Embedded>), seams: &Seams) -> Keeper {
    Keeper {
        activity: Arc::clone(activity),
        live: Arc::clone(live),
        audit: Arc::clone(store) as _,
        metrics: Arc::clone(&seams.metrics),
        clock: Arc::clone(&seams.clock),
    }
}

/// Begins what the connect flow does by itself: services are told of what ended, devices are waited for. The latter's task.
fn attend(connect: &Arc<Connect>, stop: &CancellationToken) -> JoinHandle<()> {
    // It ends with the stop: what is not told yet is on disk, and is told after the next start.
    let (telling, until) = (Arc::clone(connect), stop.clone());
    drop(tokio::spawn(async move { telling.tell_services(until).await }));
    let (awaiting, until) = (Arc::clone(connect), stop.clone());
    tokio::spawn(async move { awaiting.await_devices(until).await })
}

/// The gateway file that the options mean.
fn gateway_file(options: &Options) -> PathBuf {
    if options.gateway.is_dir() { options.gateway.join(GATEWAY_FILE) } else { options.gateway.clone() }
}

/// The secret store that the gateway file names, where it names one.
fn secret_store(options: &Options) -> Result<Option<Arc<SecretStore>>, StartError> {
    SecretStore::of_file(gateway_file(options), options.seams.outside())
        .map_err(|error| StartError::Broken(format!("the secret store has no thread: {error}")))
}

/// Reads the files again whenever a secret they name has changed.
async fn reload_with_secrets(reloader: Arc<Reloader>, mut changed: watch::Receiver<u64>, stop: CancellationToken) {
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        tracing::info!("reading the configuration again because a secret changed");
        reloader.reload().await;
    }
}

/// Looks at what the doors show now and then, so that a certificate in force is told of before its end and
/// its metric follows a reload without a connection.
async fn look_at_certificates(shown: Vec<Arc<Certificates>>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        for certificates in &shown {
            certificates.look();
        }
    }
}

async fn first_generation(options: &Options) -> Result<(Arc<Reloader>, Arc<Live>), StartError> {
    let gateway = gateway_file(options);
    if !gateway.exists() {
        return Err(StartError::NoGatewayFile(gateway));
    }
    let selection = Selection { gateway: Some(Arc::new(gateway)), ..Selection::default() };
    let reload_seams = reload::Seams {
        environment: Arc::clone(&options.seams.environment),
        clock: Arc::clone(&options.seams.clock),
        metrics: Arc::clone(&options.seams.metrics),
    };
    let started = tokio::task::spawn_blocking(move || Reloader::start(selection, reload_seams)).await;
    let started = started.map_err(|error| StartError::panicked(&error))?;
    let (reloader, live) = started.map_err(StartError::configuration)?;
    check(options, &live.load())?;
    Ok((Arc::new(reloader), live))
}

/// Whether these options and this generation can be run. A setting that is not run must not be passed over: `tls` left
/// out would be plain HTTP.
fn check(options: &Options, generation: &Generation) -> Result<(), StartError> {
    let fixed = &generation.gateway.fixed;
    if options.mock.is_some() && fixed.mode != Mode::Development {
        return Err(StartError::MockInProduction);
    }
    fixed.not_run.first().map_or(Ok(()), |part| Err(StartError::NotYet(part.clone())))
}

fn describe(metrics: &Metrics, generation: &Generation, admin: &Listen) {
    let development = generation.gateway.fixed.mode == Mode::Development;
    metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    metrics.development_mode.with_label_values::<&str>(&[]).set(i64::from(development));
    if !development {
        return;
    }
    let open = is_open(&generation.gateway, admin);
    let door = if open { ", and the admin door needs no token on this machine" } else { "" };
    tracing::warn!(
        "development mode: keys are made here, services may be plain HTTP on loopback{door}. Never serve customers like \
         this"
    );
}
