//! The store on a machine whose power is cut: what it acknowledged is there afterwards.
//!
//! Four writers of events up to 1 MiB, a worker, and writers of records and audit entries run while cuts
//! are taken; each cut is booted and read on its own, and every other run goes on from one.
//! `TRUNKLINE_POWER_CUTS` sets how many, `TRUNKLINE_CHAOS_SEED` repeats a run.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use trunkline::base::clock::{Clock, SystemClock};
use trunkline::base::id::EventId;
use trunkline::base::random::{Random, SeededRandom};
use trunkline::store::embedded::{Embedded, Options, open};
use trunkline::store::model::{Attempt, AuditEntry, Claim, Item, Lane, NewEvent, PlannedDelivery, RecordKey, Verdict};
use trunkline::store::{Audit, DEDUPE_WINDOW, Events, Records, Work};

use crate::outside::{chance, rounds, up_to};
use crate::rig::{Cut, Image, Machine, Unavailable};

const DISK: u64 = 512 << 20;
const CUTS_A_RUN: u32 = 8;
/// Small bodies mostly, as webhooks are, and some up to the default limit.
const SIZES: [usize; 8] = [120, 700, 3_000, 9_000, 400, 70_000, 1_500, 1 << 20];

/// What the store acknowledged.
#[derive(Debug, Default, Clone)]
struct Ledger {
    /// Event, its number, its size.
    events: Vec<(EventId, u64, usize)>,
    /// The newest version of each record.
    records: Vec<u64>,
    audited: u64,
}

type Shared = Arc<Mutex<Ledger>>;

#[test]
fn the_store_keeps_what_it_acknowledged_when_the_power_is_cut() {
    let random = Arc::new(chance("power cut of the store"));
    let mut image = match Machine::blank(DISK) {
        Ok(image) => image,
        Err(Unavailable(why)) => return println!("SKIPPED: the power is not cut here: {why}"),
    };
    let cuts = rounds("TRUNKLINE_POWER_CUTS", 32);
    let mut checked = 0;
    for run in 0..cuts.div_ceil(CUTS_A_RUN) {
        let mut taken = run_and_cut(&image, &random);
        for (ledger, how, cut) in &taken {
            checked += ledger.events.len();
            assert_kept(ledger, *how, cut);
        }
        // The next run recovers from this one's last cut, or begins anew.
        image = match taken.pop() {
            Some((_, _, cut)) if run % 2 == 0 => cut,
            _ => Machine::blank(DISK).unwrap_or_else(|Unavailable(why)| panic!("{why}")),
        };
    }
    println!("power cut of the store: {cuts} cuts, {checked} acknowledged events looked for and found");
    assert!(checked > 100, "too little was written to mean anything: {checked}");
}

/// Cuts the power, seeded by chance.
pub fn cut_now(machine: &Machine, how: Cut, random: &dyn Random) -> Image {
    let mut seed = [0; 8];
    random.fill(&mut seed).unwrap();
    machine.cut(how, u64::from_le_bytes(seed)).unwrap_or_else(|Unavailable(why)| panic!("{why}"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn opened(root: &Path) -> Arc<Embedded> {
    let mut options = Options::new(root.join("data"), Arc::new(SystemClock::new()));
    options.segment_bytes = 8 << 20;
    open(&options).unwrap_or_else(|error| panic!("the store does not open: {error}"))
}

fn run_and_cut(image: &Image, random: &Arc<SeededRandom>) -> Vec<(Ledger, Cut, Image)> {
    let machine = Machine::boot(image).unwrap_or_else(|Unavailable(why)| panic!("{why}"));
    let runtime = runtime();
    let store = opened(&machine.root());
    let ledger = Shared::default();
    let mut tasks = runtime.block_on(async { start(&store, &ledger, random) });
    let mut taken = Vec::new();
    for cut in 0..CUTS_A_RUN {
        std::thread::sleep(up_to(Duration::from_millis(150), &**random));
        // First the list, then the cut: all that is on it was acknowledged before.
        let acknowledged = ledger.lock().unwrap().clone();
        let how = if cut % 2 == 0 { Cut::Drive } else { Cut::Kernel };
        taken.push((acknowledged, how, cut_now(&machine, how, &**random)));
    }
    runtime.block_on(async {
        tasks.shutdown().await;
        store.close().await;
    });
    taken
}

fn start(store: &Arc<Embedded>, ledger: &Shared, random: &Arc<SeededRandom>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for writer in 0..4 {
        tasks.spawn(accept(Arc::clone(store), Arc::clone(ledger), Arc::clone(random), writer));
    }
    tasks.spawn(work(Arc::clone(store)));
    tasks.spawn(record(Arc::clone(store), Arc::clone(ledger)));
    tasks.spawn(audit(Arc::clone(store), Arc::clone(ledger)));
    tasks
}

fn body(number: u64, size: usize) -> Bytes {
    let pattern = number.to_le_bytes();
    pattern.iter().copied().cycle().take(size).collect::<Vec<u8>>().into()
}

async fn accept(store: Arc<Embedded>, ledger: Shared, random: Arc<SeededRandom>, writer: u64) {
    let clock = SystemClock::new();
    for turn in 0.. {
        let number = turn * 4 + writer;
        let size = SIZES[usize::try_from(turn + writer).unwrap() % SIZES.len()];
        let id = EventId::generate(clock.now(), &*random).unwrap();
        let event = NewEvent {
            id,
            integration: Arc::from("load"),
            endpoint: None,
            event_type: "thing.happened".to_owned(),
            delivery_id: Some(id.to_string()),
            dedupe_window: DEDUPE_WINDOW,
            received_at: clock.now(),
            query: String::new(),
            headers: vec![("content-type".to_owned(), Bytes::from_static(b"application/json"))],
            body: body(number, size),
        };
        // A full disk ends this writer; the others go on, and what it wrote counts.
        if store.accept(event).await.is_err() {
            return;
        }
        ledger.lock().unwrap().events.push((id, number, size));
    }
}

/// Plans a delivery for each event and finishes it, so that the index moves while the power fails.
async fn work(store: Arc<Embedded>) {
    let clock = SystemClock::new();
    loop {
        let now = clock.now();
        let claim =
            Claim { now, until: now.after(Duration::from_secs(30)), max: 20, busy: &[], per_lane: 20, matching: 20 };
        let Ok(leased) = store.claim(claim).await else { return };
        if leased.is_empty() {
            tokio::task::yield_now().await;
        }
        for one in leased {
            let done = match one.item {
                Item::Match(_) => {
                    let planned = PlannedDelivery {
                        rule: "all".to_owned(),
                        action: 0,
                        summary: "deliver sink".to_owned(),
                        lane: Lane(Arc::from("destination:sink")),
                        due: now,
                    };
                    store.plan(one.lease, vec![planned]).await
                }
                Item::Deliver { .. } => {
                    let attempt = Attempt {
                        number: one.attempt,
                        started_at: now,
                        duration_ms: 1,
                        status: Some(204),
                        error: None,
                    };
                    store.finish(one.lease, attempt, Verdict::Done).await
                }
            };
            if done.is_err() {
                return;
            }
        }
    }
}

fn key(place: usize) -> RecordKey {
    RecordKey { collection: Arc::from("connections"), key: Arc::from(format!("stripe/{place}")) }
}

async fn record(store: Arc<Embedded>, ledger: Shared) {
    for turn in 0..usize::MAX {
        let place = turn % 16;
        let Ok(version) = store.put(&key(place), body(turn as u64, 2_000), None).await else { return };
        let records = &mut ledger.lock().unwrap().records;
        records.resize(records.len().max(place + 1), 0);
        records[place] = version;
    }
}

async fn audit(store: Arc<Embedded>, ledger: Shared) {
    let clock = SystemClock::new();
    loop {
        let entry = AuditEntry {
            at: clock.now(),
            actor: "system".to_owned(),
            action: "connection.put".to_owned(),
            target: "connection:stripe/default".to_owned(),
            detail: serde_json::Value::Null,
        };
        let Ok(recorded) = store.append(entry).await else { return };
        ledger.lock().unwrap().audited = recorded.sequence;
    }
}

fn assert_kept(ledger: &Ledger, how: Cut, image: &Image) {
    let machine = Machine::boot(image).unwrap_or_else(|Unavailable(why)| panic!("after {how:?}: {why}"));
    let store = opened(&machine.root());
    runtime().block_on(async {
        for (id, number, size) in &ledger.events {
            let event = store.event(*id).await.unwrap_or_else(|error| panic!("{how:?}: {id}: {error}"));
            let event = event.unwrap_or_else(|| panic!("{how:?}: acknowledged event {id} is lost"));
            assert!(event.body == body(*number, *size), "{how:?}: the body of {id} is not what was written");
        }
        for (place, version) in ledger.records.iter().enumerate() {
            let found = store.get(&key(place)).await.unwrap().map_or(0, |(_, version)| version);
            assert!(found >= *version, "{how:?}: record {place} went back from version {version} to {found}");
        }
        if ledger.audited > 0 {
            let last = store.read(ledger.audited, 1).await.unwrap();
            assert_eq!(
                last.first().map(|record| record.sequence),
                Some(ledger.audited),
                "{how:?}: the audit log is cut"
            );
        }
        store.close().await;
    });
}
