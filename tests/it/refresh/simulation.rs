//! Seeded lives of one connection: a service that rotates, a network that loses, power cuts at every step.
//!
//! `SEEDS=10000 cargo test --release --test it refresh::simulation -- --nocapture` runs as many as are asked
//! for, from `FIRST_SEED`, which is how a failure is looked at again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use trunkline::base::clock::{Clock as _, ManualClock};
use trunkline::base::random::{Random as _, SeededRandom};
use trunkline::connection::{Credential, Need, Neighbours, Refresher, Status};

use super::provider::{Net, Provider, Step, Trap};
use super::world::{self, LIFE, NOW, World, access};
use crate::support::disk::FaultyDisk;

/// How many seeds run when nobody says.
const SEEDS: u64 = 240;

pub(super) fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What was seen over all seeds: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub crashes: AtomicU64,
    pub refreshes: AtomicU64,
    lost_answers: AtomicU64,
    /// Tokens that the service would not take any more, because of a crash or a lost answer.
    pub dead: AtomicU64,
    /// Interrupted calls after which a token was had all the same.
    pub saved: AtomicU64,
}

#[test]
fn no_token_is_lost_that_the_service_still_honours_and_none_is_given_up_wrongly() {
    let told = lives(asked("SEEDS", SEEDS), Life::run);
    println!("{told:?}");
    let all = [&told.crashes, &told.refreshes, &told.lost_answers, &told.dead, &told.saved];
    assert!(all.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{told:?}");
}

/// Lives that many lives, from `FIRST_SEED`, four at a time. Panics when one is broken.
pub(super) fn lives(count: u64, live: impl Fn(Life, &Seen) -> Result<(), String> + Sync) -> Seen {
    let first = asked("FIRST_SEED", 0);
    let (next, told, broken) = (AtomicU64::new(first), Seen::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let one = std::panic::AssertUnwindSafe(|| live(Life::new(seed), &told));
                    match std::panic::catch_unwind(one) {
                        Ok(Ok(())) => {}
                        Ok(Err(fault)) => broken.lock().unwrap().push(format!("seed {seed}: {fault}")),
                        Err(_) => broken.lock().unwrap().push(format!("seed {seed}: panicked")),
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{} of {count} seeds:\n{}", broken.len(), broken.join("\n"));
    told
}

/// One life: the world outside, which crashes do not touch.
pub(super) struct Life {
    random: SeededRandom,
    pub clock: Arc<ManualClock>,
    pub provider: Arc<Provider>,
    seed: u64,
    /// The newest token that a caller was given.
    pub used: usize,
}

/// A process and its disk.
pub(super) struct Process {
    pub runtime: Arc<Runtime>,
    pub world: Arc<World>,
    pub refresher: Arc<Refresher>,
    pub directory: PathBuf,
    pub kept: Arc<TempDir>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed.wrapping_mul(0x9e37_79b9) ^ 0x5eed);
        let clock = Arc::new(ManualClock::at(NOW));
        let grace = if random.unit() < 0.5 { Duration::ZERO } else { Duration::from_secs(30) };
        let provider = Arc::new(Provider::new(clock.clone(), grace, random.unit() < 0.5));
        Self { random, clock, provider, seed, used: 0 }
    }

    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        let mut bytes = [0; 2];
        self.random.fill(&mut bytes).unwrap();
        of[usize::from(u16::from_le_bytes(bytes)) % of.len()]
    }

    pub fn begin(&self, directory: TempDir, key: Option<Arc<TempDir>>, neighbours: Neighbours) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let trap = Arc::new(Trap::on(FaultyDisk::default(), None));
        let path = directory.path().to_owned();
        let (clock, provider) = (self.clock.clone(), self.provider.clone());
        let world = runtime.block_on(World::at(&path, (provider, clock), trap, key, self.seed));
        let refresher = world.process(neighbours);
        let (runtime, world, kept) = (Arc::new(runtime), Arc::new(world), Arc::new(directory));
        Process { runtime, world, refresher, directory: path, kept }
    }

    fn run(mut self, seen: &Seen) -> Result<(), String> {
        let mut process = self.begin(world::directory(), None, Neighbours::None);
        process.runtime.block_on(process.world.connect(0));
        for round in 0..5 {
            process = self.round(process, seen).map_err(|fault| format!("round {round}: {fault}"))?;
            if process.runtime.block_on(process.world.health()).status() == Status::NeedsReconnect {
                break;
            }
        }
        process.runtime.block_on(process.refresher.drain(Duration::from_secs(10)));
        process.runtime.block_on(process.world.store.close());
        Ok(())
    }

    /// The token comes to its end while something goes wrong; then all is well, and what can be had must be.
    fn round(&mut self, process: Process, seen: &Seen) -> Result<Process, String> {
        let early = self.pick(&[Duration::ZERO, Duration::from_mins(4), Duration::from_secs(20)]);
        self.clock.advance(LIFE.saturating_sub(early));
        let net = self.pick(&[Net::Fine, Net::Fine, Net::Unsent, Net::LostCall, Net::LostAnswer, Net::Busy]);
        let mut steps: Vec<_> = Step::ALL.into_iter().map(Some).collect();
        steps.extend([None; 5]);
        let step = self.pick(&steps);
        process.world.trap.plan(step);
        self.provider.answer(net);
        let what = format!("{net:?}, power cut {step:?}, {early:?} early");
        let given = process.callers();
        self.provider.answer(Net::Fine);
        let crashed = process.world.trap.sprung();
        for number in given {
            self.used = self.used.max(number);
        }
        let process = if crashed { self.restart(process, seen) } else { process };
        process.world.trap.plan(None);
        seen.lost_answers.fetch_add(u64::from(net == Net::LostAnswer), Ordering::Relaxed);
        self.settle(&process, seen, crashed || net != Net::Fine).map_err(|fault| format!("{what}: {fault}"))?;
        Ok(process)
    }

    /// The power comes back; what was durable is there, and nothing else.
    fn restart(&self, process: Process, seen: &Seen) -> Process {
        seen.crashes.fetch_add(1, Ordering::Relaxed);
        let after = world::directory();
        let disk = &process.world.trap.disk;
        disk.cut_power(&process.directory, after.path());
        let key = process.world.key();
        let Process { runtime, world, refresher, kept: _kept, .. } = process;
        drop((refresher, world));
        Arc::into_inner(runtime).unwrap().shutdown_background();
        self.provider.hang_up();
        self.clock.advance(self.pick(&[Duration::ZERO, Duration::from_secs(20), Duration::from_secs(70)]));
        self.begin(after, Some(key), Neighbours::None)
    }

    pub fn settle(&mut self, process: &Process, seen: &Seen, disturbed: bool) -> Result<(), String> {
        let (held, refresh) = process.held();
        if held < self.used {
            return Err(format!("a{} was used, and a{held} is what is durable", self.used));
        }
        let honoured = self.provider.honours(&refresh);
        let calls = self.provider.calls();
        process.background();
        for _ in 0..6 {
            let ended = process.caller(Need { token: None, validity: Duration::from_mins(5) });
            let health = process.runtime.block_on(process.world.health());
            match (ended, health.next_try()) {
                (Ok(number), None) if number > 0 && self.provider.knows(&format!("a{number}")) => break,
                (_, Some(next)) => self.clock.advance(next.since(self.clock.now()) + Duration::from_millis(1)),
                _ => {}
            }
        }
        let status = process.runtime.block_on(process.world.health()).status();
        let (_, refresh_now) = process.held();
        if status == Status::NeedsReconnect && self.provider.honours(&refresh_now) {
            return Err(format!("{refresh_now} is given up, and the service honours it"));
        }
        if honoured {
            let number = process.caller(Need::default()).map_err(|error| {
                format!("{refresh} was honoured, and there is no usable token: {status:?}, {error}")
            })?;
            if !self.provider.knows(&format!("a{number}")) || status != Status::Active {
                return Err(format!("{refresh} was honoured, and it ends with a{number}, {status:?}"));
            }
            self.used = number;
            let saved = disturbed && self.provider.calls() > calls;
            seen.saved.fetch_add(u64::from(saved), Ordering::Relaxed);
            seen.refreshes.fetch_add(1, Ordering::Relaxed);
        } else {
            seen.dead.fetch_add(1, Ordering::Relaxed);
            self.clock.advance(LIFE);
            let error = process.caller(Need::default()).err();
            if process.runtime.block_on(process.world.health()).status() != Status::NeedsReconnect {
                return Err(format!("{refresh} is dead, and nobody is told: {status:?}, {error:?}"));
            }
        }
        if self.provider.most_at_once() > 1 {
            return Err("two token calls at once".to_owned());
        }
        Ok(())
    }
}

impl Process {
    /// Some callers at once and the background, until they have their answers or the power is cut. Answers
    /// the tokens that callers were given.
    pub fn callers(&self) -> Vec<usize> {
        let given = Arc::new(Mutex::new(Vec::new()));
        self.runtime.block_on(async {
            let callers = (0..3).map(|_| {
                let (world, refresher, given) = (self.world.clone(), self.refresher.clone(), given.clone());
                tokio::spawn(async move {
                    let soon = Need { token: None, validity: Duration::from_mins(5) };
                    if let Ok(number) = ask(&world, &refresher, soon).await {
                        given.lock().unwrap().push(number);
                    }
                })
            });
            let all = async {
                drop(join_all(callers.collect::<Vec<_>>()).await);
                self.refresher.sweep().await.ok();
                while self.refresher.is_busy() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = all => {}
                () = self.world.trap.crash.notified() => {}
            }
        });
        let given = given.lock().unwrap();
        given.clone()
    }

    fn background(&self) {
        self.runtime.block_on(async {
            self.refresher.sweep().await.ok();
            while self.refresher.is_busy() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    fn caller(&self, need: Need<'_>) -> Result<usize, String> {
        self.runtime.block_on(ask(&self.world, &self.refresher, need))
    }

    /// The access token's number, and the refresh token, as they are stored.
    fn held(&self) -> (usize, String) {
        let (access, refresh) = self.runtime.block_on(self.world.stored());
        (access.trim_start_matches('a').parse().unwrap(), refresh)
    }
}

async fn ask(world: &World, refresher: &Arc<Refresher>, need: Need<'_>) -> Result<usize, String> {
    let generation = world.live.load();
    let integration = generation.integration("svc").unwrap();
    let held = world.connections().resolve(&generation, integration, "team").await;
    let held = held.map_err(|error| error.to_string())?;
    assert!(matches!(held.credential, Credential::Tokens(_)));
    let usable = refresher.usable(&generation, integration, held, need).await.map_err(|error| error.to_string())?;
    Ok(access(&usable, None).trim_start_matches('a').parse().unwrap())
}
