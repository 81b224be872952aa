//! Seeded lives of two processes that share a store: one of them is killed somewhere while both renew the same token.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trunkline::connection::refresh::LEASE;
use trunkline::connection::{Neighbours, Status};

use super::provider::{Net, Step, Trap};
use super::simulation::{Life, Process, Seen, asked, lives};
use super::world::{self, LIFE};

/// How many seeds run when nobody says.
const SEEDS: u64 = 40;

#[test]
fn one_of_two_processes_is_killed_and_the_other_goes_on_where_it_was() {
    let told = lives(asked("SEEDS", SEEDS), live);
    println!("{told:?}");
    let all = [&told.crashes, &told.refreshes, &told.dead, &told.saved];
    assert!(all.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{told:?}");
}

fn live(mut life: Life, seen: &Seen) -> Result<(), String> {
    let survivor = life.begin(world::directory(), None, Neighbours::Some);
    survivor.runtime.block_on(survivor.world.connect(0));
    for round in 0..3 {
        let step = life.pick(&[&Step::ALL.map(Some)[..], &[None; 3][..]].concat());
        let net = life.pick(&[Net::Fine, Net::Fine, Net::Fine, Net::Unsent, Net::LostAnswer]);
        let what = format!("round {round}, {net:?}, killed {step:?}");
        life.together(&survivor, (step, net), seen).map_err(|fault| format!("{what}: {fault}"))?;
        if survivor.runtime.block_on(survivor.world.health()).status() == Status::NeedsReconnect {
            break;
        }
    }
    survivor.runtime.block_on(survivor.world.store.close());
    Ok(())
}

impl Life {
    /// Both processes are asked for the token at its end, and one of them is killed.
    fn together(&mut self, survivor: &Process, (step, net): (Option<Step>, Net), seen: &Seen) -> Result<(), String> {
        self.clock.advance(LIFE.saturating_sub(self.pick(&[Duration::ZERO, Duration::from_mins(4)])));
        // A disk of its own that nobody uses: the trap stops this process, and the store goes on.
        let trap = Arc::new(Trap::default());
        trap.plan(step);
        let other = survivor.runtime.block_on(survivor.world.beside(trap.clone(), Neighbours::Some));
        let other = Process {
            runtime: survivor.runtime.clone(),
            world: Arc::new(other.1),
            refresher: other.0,
            directory: survivor.directory.clone(),
            kept: survivor.kept.clone(),
        };
        self.provider.answer(net);
        let given = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| survivor.callers());
            let mut given = other.callers();
            if trap.sprung() {
                seen.crashes.fetch_add(1, Ordering::Relaxed);
                self.provider.hang_up();
                // Whoever waits for its lease sees it run out.
                self.clock.advance(LEASE + Duration::from_secs(1));
            }
            given.extend(waiting.join().unwrap_or_default());
            given
        });
        self.provider.answer(Net::Fine);
        self.used = given.into_iter().fold(self.used, usize::max);
        self.settle(survivor, seen, trap.sprung() || net != Net::Fine)
    }
}
