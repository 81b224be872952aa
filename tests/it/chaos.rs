//! Faults from outside, over the real binary: what was acknowledged must be found and delivered.
//!
//! `TRUNKLINE_CHAOS_ROUNDS`, `TRUNKLINE_CHAOS_CUTS` and `TRUNKLINE_CHAOS_QUEUED` make the runs longer (`make
//! chaos` does); `TRUNKLINE_CHAOS_SEED` repeats one.
#![expect(clippy::print_stdout, reason = "a skip must be loud, and a run says what it saw")]

use std::sync::Arc;
use std::time::Duration;

use trunkline::base::clock::{Clock, SystemClock};

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::sender::{Ledger, Load};
use crate::outside::sink::{Mood, Sink};
use crate::outside::{chance, rounds, up_to, within};
use crate::rig::{Cut, Machine, Unavailable};

/// How long everything acknowledged may take to be delivered once the gateway runs undisturbed.
const SETTLE: Duration = Duration::from_mins(1);
/// After this no further round of power cuts is begun, unless a number was asked for.
const CUTTING: Duration = Duration::from_mins(2);
/// Bodies of the usual size, and some of 64 KiB and 1 MiB.
const MIXED: &[usize] = &[200, 900, 8_000, 300, 65_536, 2_000, 1_000_000];
const SMALL: &[usize] = &[200, 900, 4_000];

fn assert_all_delivered(ledger: &Ledger, sink: &Sink, deployment: &Deployment) {
    let acknowledged = ledger.acknowledged();
    let done = within(SETTLE, || sink.missing(acknowledged.keys()).is_empty());
    let missing = sink.missing(acknowledged.keys());
    assert!(
        done,
        "{} of {} acknowledged events were not delivered, such as {:?}\n{}",
        missing.len(),
        acknowledged.len(),
        missing.first(),
        deployment.log_tail()
    );
}

fn assert_all_stored(ledger: &Ledger, deployment: &Deployment) {
    let mut client = Client::new(deployment.admin);
    for (sent, event) in ledger.acknowledged() {
        let event = event.unwrap_or_else(|| panic!("the acknowledgement of {sent} named no event"));
        let reply = client.get(&format!("/api/events/{event}")).unwrap();
        assert_eq!(reply.status, 200, "event {event}, acknowledged as {sent}, is not in the store");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_at_random() {
    let random = chance("kill -9");
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    let ledger = Arc::new(Ledger::default());
    for round in 0..rounds("TRUNKLINE_CHAOS_ROUNDS", 50) {
        let during_start = round % 5 == 4;
        let gateway = if during_start { deployment.spawn() } else { deployment.start() };
        let load = Load::start(&ledger, deployment.public, 4, MIXED);
        std::thread::sleep(up_to(Duration::from_millis(if during_start { 300 } else { 250 }), &random));
        gateway.kill();
        load.stop();
    }
    let _gateway = deployment.start();
    assert_all_delivered(&ledger, &sink, &deployment);
    assert_all_stored(&ledger, &deployment);
    println!("kill -9: {} acknowledged, {} delivered again", ledger.len(), sink.repeats());
    assert!(ledger.len() > 50, "too little was sent to mean anything: {}", ledger.len());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    // Every other run goes on with what is there, and a full disk takes nothing: room for the fastest of machines.
    const DISK: u64 = 1 << 30;
    const CUTS_A_RUN: u32 = 6;
    let random = chance("power cut");
    let mut image = match Machine::blank(DISK) {
        Ok(image) => image,
        Err(Unavailable(why)) => return println!("SKIPPED: the power is not cut here: {why}"),
    };
    let cuts = rounds("TRUNKLINE_CHAOS_CUTS", 24);
    // On a busy machine a cut takes long; what was not asked for ends in time, and says how far it came.
    let (clock, asked_for) = (SystemClock::new(), std::env::var_os("TRUNKLINE_CHAOS_CUTS").is_some());
    let (mut checked, mut made) = (0, 0);
    for run in 0..cuts.div_ceil(CUTS_A_RUN) {
        if !asked_for && clock.monotonic() > CUTTING {
            break;
        }
        // Every other run goes on from what a cut left, so that recovery is recovered from as well.
        let machine = Machine::boot(&image).unwrap_or_else(|Unavailable(why)| panic!("{why}"));
        let sink = Sink::start(Mood::Well);
        let deployment = Deployment::new(&[("sink", sink.url())], Some(&machine.root().join("data")));
        let gateway = deployment.start();
        let ledger = Arc::new(Ledger::default());
        let load = Load::start(&ledger, deployment.public, 4, MIXED);
        let mut taken = Vec::new();
        for cut in 0..CUTS_A_RUN {
            std::thread::sleep(up_to(Duration::from_millis(400), &random));
            let acknowledged = ledger.acknowledged();
            let how = if cut % 2 == 0 { Cut::Kernel } else { Cut::Drive };
            taken.push((acknowledged, how, crate::power::cut_now(&machine, how, &random)));
        }
        gateway.kill();
        load.stop();
        drop(machine);
        for (acknowledged, how, cut) in &taken {
            (checked, made) = (checked + acknowledged.len(), made + 1);
            assert_cut_keeps(acknowledged, *how, cut);
        }
        if run % 2 == 0
            && let Some((_, _, cut)) = taken.pop()
        {
            image = cut;
        }
    }
    println!("power cut: {made} cuts, {checked} acknowledged events found");
    assert!(checked > 100, "too little was sent to mean anything: {checked}");
}

fn assert_cut_keeps(
    acknowledged: &std::collections::BTreeMap<String, Option<String>>,
    how: Cut,
    image: &crate::rig::Image,
) {
    let machine = Machine::boot(image).unwrap_or_else(|Unavailable(why)| panic!("after {how:?}: {why}"));
    let sink = Sink::start(Mood::Failing);
    let deployment = Deployment::new(&[("sink", sink.url())], Some(&machine.root().join("data")));
    let gateway = deployment.start();
    let mut client = Client::new(deployment.admin);
    for (sent, event) in acknowledged {
        let event = event.as_ref().unwrap_or_else(|| panic!("the acknowledgement of {sent} named no event"));
        let reply = client.get(&format!("/api/events/{event}"));
        let reply = reply.unwrap_or_else(|error| panic!("{how:?}: {event}: {error}\n{}", deployment.log_tail()));
        assert_eq!(reply.status, 200, "{how:?}: {event}, acknowledged as {sent}, is lost\n{}", deployment.log_tail());
    }
    gateway.kill();
}

#[test]
fn a_destination_in_trouble_holds_up_no_other_and_loses_nothing() {
    for trouble in [Mood::Failing, Mood::Slow(Duration::from_millis(700)), Mood::Resetting] {
        let (good, bad) = (Sink::start(Mood::Well), Sink::start(trouble));
        let deployment = Deployment::new(&[("good", good.url()), ("bad", bad.url())], None);
        let _gateway = deployment.start();
        let ledger = Ledger::default();
        let mut client = Client::new(deployment.public);
        for _ in 0..60 {
            ledger.send_one(&mut client, 500).expect("an answer");
        }
        assert_eq!(ledger.len(), 60);
        let clock = SystemClock::new();
        let acknowledged = ledger.acknowledged();
        let limit = Duration::from_secs(5);
        assert!(within(limit, || good.missing(acknowledged.keys()).is_empty()), "{trouble:?} holds up the other");
        println!("{trouble:?}: the other had everything after {:?}", clock.monotonic());
        bad.set(Mood::Well);
        assert_all_delivered(&ledger, &bad, &deployment);
    }
}

#[test]
fn a_start_with_a_full_queue_serves_soon() {
    let queued = rounds("TRUNKLINE_CHAOS_QUEUED", 5_000) as usize;
    let sink = Sink::start(Mood::Failing);
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    let gateway = deployment.start();
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&ledger, deployment.public, 8, SMALL);
    assert!(within(Duration::from_mins(10), || ledger.len() >= queued), "only {} were taken", ledger.len());
    load.stop();
    gateway.kill();
    let clock = SystemClock::new();
    let mut gateway = deployment.spawn();
    let serving = within(Duration::from_secs(20), || gateway.is_ready());
    let took = clock.monotonic();
    assert!(serving, "{}", deployment.log_tail());
    println!("start with {} queued events: serving after {took:?}", ledger.len());
    assert!(ledger.send_one(&mut Client::new(deployment.public), 200).is_some_and(|reply| reply.status < 300));
}

#[test]
fn a_full_disk_is_refused_honestly_and_recovered_from() {
    let Some(disk) = SmallDisk::mount("24m") else {
        return println!("SKIPPED: no tmpfs can be mounted here, so no disk is filled");
    };
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("sink", sink.url())], Some(&disk.path().join("data")));
    let gateway = deployment.start();
    let (ledger, mut client) = (Ledger::default(), Client::new(deployment.public));
    assert_eq!(ledger.send_one(&mut client, 500).map(|reply| reply.status / 100), Some(2));
    disk.fill();
    let refused = |ledger: &Ledger, client: &mut Client| {
        let reply = ledger.send_one(client, 60_000).expect("an answer");
        (reply.status == 503).then(|| reply.header("retry-after").map(str::to_owned))
    };
    let mut last = None;
    assert!(
        within(Duration::from_secs(15), || {
            last = refused(&ledger, &mut client);
            last.is_some()
        }),
        "a full disk must be refused with 503"
    );
    assert!(last.flatten().is_some_and(|wait| wait.parse::<u64>().is_ok()), "with `Retry-After`");
    let proxied = Client::new(deployment.proxy).get("/nothing/here").expect("the proxy door lives");
    assert!((400..500).contains(&proxied.status), "{}", proxied.status);
    // A gateway that is started on the full disk does the same.
    gateway.kill();
    let _gateway = deployment.spawn();
    let lives = || Client::new(deployment.proxy).get("/nothing/here").is_ok_and(|reply| reply.status / 100 == 4);
    assert!(within(Duration::from_secs(20), lives), "it must start\n{}", deployment.log_tail());
    let mut client = Client::new(deployment.public);
    assert!(refused(&ledger, &mut client).flatten().is_some(), "503 with `Retry-After`\n{}", deployment.log_tail());
    disk.empty();
    let recovered = || ledger.send_one(&mut client, 500).is_some_and(|reply| reply.status < 300);
    assert!(within(Duration::from_secs(10), recovered), "it must recover by itself\n{}", deployment.log_tail());
    assert_all_delivered(&ledger, &sink, &deployment);
}

/// A tmpfs of a few MiB; unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("trunkline-full", directory.path(), "tmpfs", flags, Some(options.as_c_str())).ok()?;
        Some(Self(directory))
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        let chunk = vec![1; 64 << 10];
        while file.write_all(&chunk).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(self.path(), flags) {
            println!("unmounting {} failed: {error}", self.path().display());
        }
    }
}
