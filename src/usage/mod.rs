//! How much is called, how it ends and how long it takes: counted by the minute, for each integration and endpoint.
//!
//! Every call to a service is counted, also where the activity keeps no entry of it. What is counted is handed over by
//! the activity's thread, so that no call waits for it. Minutes are kept for two days ([`FINE`]), and after that put
//! together in quarters of an hour until `usage.retain`. Memory is bounded by `usage.bytes`: when it is used up, minutes are
//! put together earlier, and then the oldest are let go, which is counted. A minute in which the gateway ran is there
//! even without calls, so that a gap is told from silence. [`times`] has the durations, [`slot`] the counts, [`files`]
//! what outlives the process, [`ask`] the questions. Called by `activity` and `admin`.

pub mod ask;
pub mod files;
pub mod slot;
pub mod times;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::definition::plan::gateway::Usage as Settings;
use ask::{Answer, Question};
use files::{DAY, Files, Place};
use slot::{Sample, Slot};

/// Minutes for which single minutes are kept.
pub const FINE: u32 = 2 * DAY;
/// Minutes that older ones are put together by.
pub const QUARTER: u32 = 15;
/// Single minutes of the last hour are kept however little memory there is.
const LEAST_FINE: u32 = 60;
/// The files may have so many times the bytes of memory: text takes more room than numbers.
const FILES: u64 = 4;

/// All tallies.
#[derive(Debug, Default)]
pub struct Usage {
    state: Mutex<State>,
    /// Taken before `state`, and held while the disk is waited for.
    files: Mutex<Option<Files>>,
    retain_minutes: AtomicU64,
    most: AtomicU64,
    /// Minutes let go early for the sake of memory, and days of files for the sake of the disk.
    cut: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct State {
    /// By their first minutes.
    slots: BTreeMap<u32, Arc<Slot>>,
    /// What was counted since it was last written.
    fresh: BTreeMap<u32, Slot>,
    bytes: usize,
    /// The minute in which it was last written.
    written: u32,
}

/// What was let go early since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Minutes, because memory was used up.
    pub memory: u64,
    /// Days of files, because they had too many bytes.
    pub files: u64,
}

/// The minute of a moment, since 1970.
pub fn minute(at: Timestamp) -> u32 {
    u32::try_from(at.seconds() / 60).unwrap_or(u32::MAX)
}

/// The moment at which a minute begins.
pub fn moment(minute: u32) -> Timestamp {
    Timestamp::from_seconds(u64::from(minute) * 60)
}

impl Usage {
    /// With what is in the files. Reads files, so call it where that may take its time.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn open(place: Place, settings: Settings, now: Timestamp) -> io::Result<Self> {
        let usage = Self::default();
        usage.apply(settings);
        let (files, slots) = Files::open(place)?;
        let mut state = usage.lock();
        for (minute, slot) in slots {
            state.put(minute, &slot);
        }
        state.written = minute(now);
        drop(state);
        *usage.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
        Ok(usage)
    }

    /// Takes settings over; [`Self::tidy`] lets go of what is too much by them.
    pub fn apply(&self, settings: Settings) {
        self.retain_minutes.store(settings.retain.as_secs() / 60, Ordering::Relaxed);
        self.most.store(settings.bytes, Ordering::Relaxed);
    }

    /// Counts a call.
    pub fn count(&self, sample: &Sample) {
        let mut state = self.lock();
        let slot = state.fresh.entry(minute(sample.at)).or_insert_with(|| Slot::empty(1));
        match slot.cells.get_mut(&sample.series) {
            Some(cell) => cell.count(sample),
            None => slot.cells.entry(sample.series.clone()).or_default().count(sample),
        }
    }

    /// Notes that the gateway runs; once a minute writes what was counted, puts old minutes together and lets go of what
    /// is too old or too much. May wait for the disk.
    pub fn tidy(&self, now: Timestamp) {
        let now = minute(now);
        let mut state = self.lock();
        state.fresh.entry(now).or_insert_with(|| Slot::empty(1));
        let due = state.written != now;
        drop(state);
        if due {
            self.settle(now);
        }
    }

    /// Writes what was counted. Waits for the disk.
    pub fn close(&self, now: Timestamp) {
        self.settle(minute(now));
    }

    fn settle(&self, now: u32) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (retain, most) = (self.retain_minutes.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed));
        let oldest = now.saturating_sub(u32::try_from(retain).unwrap_or(u32::MAX));
        let mut state = self.lock();
        let fresh: Vec<_> = std::mem::take(&mut state.fresh).into_iter().collect();
        for (minute, slot) in &fresh {
            state.put(*minute, slot);
        }
        state.written = now;
        state.coarsen(now.saturating_sub(FINE));
        state.retire(oldest);
        let cut = state.fit(usize::try_from(most).unwrap_or(usize::MAX), now.saturating_sub(LEAST_FINE));
        drop(state);
        self.cut[0].fetch_add(cut, Ordering::Relaxed);
        if let Some(files) = &mut *files
            && let Err(error) = self.write(files, &fresh, (oldest, now))
        {
            tracing::error!("the usage cannot be written, and is in memory alone: {error}");
        }
    }

    fn write(&self, files: &mut Files, fresh: &[(u32, Slot)], (oldest, now): (u32, u32)) -> io::Result<()> {
        let appended = files.append(fresh);
        for day in files.stale(now.saturating_sub(FINE) / DAY) {
            let slots = self.between(day * DAY, (day + 1) * DAY);
            files.rewrite(day, &slots)?;
        }
        let most = self.most.load(Ordering::Relaxed).saturating_mul(FILES);
        self.cut[1].fetch_add(files.tidy(oldest / DAY, most), Ordering::Relaxed);
        // What could not be put at the end has been written with the whole day.
        appended.or_else(|error| if files.stale(0).is_empty() { Ok(()) } else { Err(error) })
    }

    /// The slots that are kept, of these minutes.
    fn between(&self, from: u32, to: u32) -> Vec<(u32, Arc<Slot>)> {
        let state = self.lock();
        state.slots.range(from..to.max(from)).map(|(minute, slot)| (*minute, Arc::clone(slot))).collect()
    }

    /// Answers a question. Looks through as much as it asks for, so ask where that may take its time.
    pub fn answer(&self, question: Question) -> Answer {
        let (from, to) = (question.from, question.to.max(question.from));
        let state = self.lock();
        // The first and the last point are whole, and so may reach beyond what is asked for.
        let around = question.step.saturating_add(QUARTER);
        let range = from.saturating_sub(around)..to.saturating_add(around);
        let kept = state.slots.range(range.clone());
        let mut slots: Vec<_> = kept.map(|(minute, slot)| (*minute, Arc::clone(slot))).collect();
        slots.extend(state.fresh.range(range).map(|(minute, slot)| (*minute, Arc::new(slot.clone()))));
        drop(state);
        question.answer(&slots)
    }

    /// Bytes of memory that the tallies take.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// For how long they are kept.
    pub fn retain(&self) -> Duration {
        Duration::from_secs(self.retain_minutes.load(Ordering::Relaxed).saturating_mul(60))
    }

    /// What was let go early since this was last asked.
    pub fn taken(&self) -> Cut {
        let [memory, files] = &self.cut;
        Cut { memory: memory.swap(0, Ordering::Relaxed), files: files.swap(0, Ordering::Relaxed) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds a slot to what is there.
    fn put(&mut self, minute: u32, slot: &Slot) {
        // A minute of a quarter that has been put together already belongs to it.
        let quarter = minute - minute % QUARTER;
        let together = self.slots.get(&quarter).is_some_and(|known| known.width > slot.width);
        let place = if together { quarter } else { minute };
        let before = self.slots.get(&place).map_or(0, |known| known.bytes());
        let known = self.slots.entry(place).or_insert_with(|| Arc::new(Slot::empty(slot.width)));
        let known = Arc::make_mut(known);
        known.width = known.width.max(slot.width);
        known.merge(slot);
        self.bytes = (self.bytes + known.bytes()).saturating_sub(before);
    }

    /// Puts the minutes of whole quarters together that end at `until` or before.
    fn coarsen(&mut self, until: u32) {
        let until = until - until % QUARTER;
        let fine: Vec<_> =
            self.slots.range(..until).filter(|(_, slot)| slot.width < QUARTER).map(|(at, _)| *at).collect();
        for minute in fine {
            let Some(slot) = self.slots.remove(&minute) else { continue };
            self.bytes = self.bytes.saturating_sub(slot.bytes());
            self.put(minute - minute % QUARTER, &Slot { width: QUARTER, cells: slot.cells.clone() });
        }
    }

    /// Lets go of what ended before a minute.
    fn retire(&mut self, oldest: u32) {
        while let Some((&minute, slot)) = self.slots.first_key_value()
            && minute.saturating_add(slot.width) <= oldest
        {
            self.bytes = self.bytes.saturating_sub(slot.bytes());
            self.slots.remove(&minute);
        }
    }

    /// Makes it fit: minutes before `fine` are put together, and then the oldest let go. Returns how many minutes were.
    fn fit(&mut self, most: usize, fine: u32) -> u64 {
        let mut cut = 0;
        while self.bytes > most {
            let first_fine = self.slots.iter().find(|(_, slot)| slot.width < QUARTER).map(|(minute, _)| *minute);
            if let Some(minute) = first_fine.filter(|minute| minute - minute % QUARTER + QUARTER <= fine) {
                self.coarsen(minute - minute % QUARTER + QUARTER);
                continue;
            }
            let Some((_, slot)) = self.slots.pop_first() else { break };
            self.bytes = self.bytes.saturating_sub(slot.bytes());
            cut += u64::from(slot.width);
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::slot::Series;
    use super::*;
    use crate::store::disk::SystemDisk;

    pub(in crate::usage) fn sample(minute: u32) -> Sample {
        Sample {
            at: moment(minute),
            series: Series { integration: Arc::from("shop"), endpoint: Some(Arc::from("orders")) },
            failed: false,
            attempts: 1,
            cache: None,
            duration_ms: 12,
            bytes: (0, 0),
        }
    }

    const SETTINGS: Settings = Settings { retain: Duration::from_hours(24 * 62), bytes: 64 << 20 };
    /// A minute in the middle of a day and of a quarter.
    const NOON: u32 = 20_000 * DAY + 727;

    fn total(usage: &Usage, from: u32, to: u32) -> u64 {
        let step = if to.saturating_sub(from) < 1_000 { 1 } else { to };
        let question = Question { from, to, step, integration: None, endpoint: None };
        usage.answer(question).total.counts.requests
    }

    fn kept() -> Usage {
        let usage = Usage::default();
        usage.apply(SETTINGS);
        usage
    }

    fn run(usage: &Usage, minutes: std::ops::Range<u32>) {
        for minute in minutes {
            usage.count(&sample(minute));
            usage.tidy(moment(minute));
        }
    }

    #[test]
    fn what_is_counted_can_be_asked_for_at_once() {
        let usage = kept();
        usage.count(&sample(NOON));
        usage.count(&sample(NOON - 1));
        assert_eq!((total(&usage, NOON, NOON + 1), total(&usage, NOON - 1, NOON + 1)), (1, 2));
        run(&usage, NOON..NOON + 3);
        assert_eq!(total(&usage, NOON, NOON + 3), 4);
        assert_eq!(total(&usage, NOON + 3, NOON), 0, "a question without minutes");
        let question = Question { from: NOON + 2, to: NOON + 3, step: 60, integration: None, endpoint: None };
        let answer = usage.answer(question);
        assert_eq!((answer.from, answer.total.counts.requests), (NOON - 7, 5), "a point is whole");
    }

    #[test]
    fn old_minutes_are_put_together_and_what_is_too_old_goes() {
        let usage = kept();
        run(&usage, NOON..NOON + 40);
        usage.tidy(moment(NOON + FINE + 60));
        assert_eq!(total(&usage, NOON - 30, NOON + 60), 40);
        let widths: Vec<_> = usage.between(0, u32::MAX).iter().map(|(_, slot)| slot.width).collect();
        assert_eq!(widths, [15, 15, 15, 15, 1], "four quarters, and the minute of now");
        usage.count(&sample(NOON + 1));
        usage.tidy(moment(NOON + FINE + 61));
        assert_eq!(total(&usage, NOON - 30, NOON + 60), 41, "one that comes late joins its quarter");
        usage.apply(Settings { retain: Duration::from_hours(1), ..SETTINGS });
        usage.tidy(moment(NOON + FINE + 62));
        assert_eq!((total(&usage, 0, u32::MAX), usage.between(0, u32::MAX).len()), (0, 3));
    }

    #[test]
    fn memory_is_bounded_first_by_coarser_and_then_by_fewer() {
        let usage = kept();
        run(&usage, NOON..NOON + 300);
        let all = usage.bytes();
        usage.apply(Settings { bytes: u64::try_from(all / 2).expect("small"), ..SETTINGS });
        usage.tidy(moment(NOON + 300));
        assert!(usage.bytes() <= all / 2 && usage.bytes() > 0, "{} of {all}", usage.bytes());
        assert_eq!((usage.taken(), total(&usage, NOON, NOON + 301)), (Cut::default(), 300));
        usage.apply(Settings { bytes: 1_000, ..SETTINGS });
        usage.tidy(moment(NOON + 301));
        assert!(usage.bytes() <= 1_000 && usage.taken().memory > 200);
    }

    #[test]
    fn bytes_are_those_of_the_slots() {
        let usage = kept();
        run(&usage, NOON..NOON + 100);
        usage.tidy(moment(NOON + FINE + 50));
        let slots: usize = usage.between(0, u32::MAX).iter().map(|(_, slot)| slot.bytes()).sum();
        assert_eq!(usage.bytes(), slots);
    }

    fn place(directory: &std::path::Path) -> Place {
        Place {
            store: directory.to_owned(),
            min_free: crate::base::units::Reserve::Bytes(0),
            disk: Arc::new(SystemDisk),
        }
    }

    fn open(directory: &std::path::Path, now: u32) -> Usage {
        Usage::open(place(directory), SETTINGS, moment(now)).expect("a directory")
    }

    #[test]
    fn tallies_are_there_after_another_start_and_a_torn_end_loses_only_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let usage = open(directory.path(), NOON);
        run(&usage, NOON..NOON + 5);
        usage.close(moment(NOON + 5));
        let usage = open(directory.path(), NOON + 6);
        assert_eq!(total(&usage, NOON, NOON + 10), 5);
        run(&usage, NOON + 4..NOON + 6);
        usage.close(moment(NOON + 6));
        let file = directory.path().join("usage").join(format!("{:06}.tallies", NOON / DAY));
        let length = std::fs::metadata(&file).expect("a file").len();
        std::fs::OpenOptions::new().write(true).open(&file).expect("a file").set_len(length - 3).expect("cut");
        let usage = open(directory.path(), NOON + 7);
        assert_eq!(total(&usage, NOON, NOON + 10), 6);
        // What follows is not lost behind the torn end.
        run(&usage, NOON + 8..NOON + 10);
        usage.close(moment(NOON + 10));
        assert_eq!(total(&open(directory.path(), NOON + 10), NOON, NOON + 10), 8);
    }

    #[test]
    fn a_day_whose_minutes_are_put_together_has_a_smaller_file_and_an_old_one_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("usage").join(format!("{:06}.tallies", NOON / DAY));
        let size = || std::fs::metadata(&file).map(|file| file.len()).ok();
        let usage = open(directory.path(), NOON);
        run(&usage, NOON..NOON + 60);
        usage.close(moment(NOON + 60));
        let before = size().expect("a file");
        usage.tidy(moment(NOON + FINE + DAY));
        assert!(size().expect("a file") < before / 4, "{before} bytes became {:?}", size());
        assert_eq!(total(&open(directory.path(), NOON + FINE + DAY), NOON - 30, NOON + 90), 60);
        usage.tidy(moment(NOON + 64 * DAY));
        assert_eq!(size(), None);
    }
}
