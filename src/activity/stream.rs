//! The live stream: each viewer looks for what is new four times a second, so that a thousand of them cost a call
//! nothing, and what a viewer holds is a place, a filter and a few chunks.
//!
//! A viewer that was too far behind is told that there is a gap. One that takes nothing for a while is let go, and
//! told why; it comes again with the last id it has seen, and goes on there. What is looked through for a viewer and not
//! shown counts as seen: its place is told by events that are an id alone. Called by `admin`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;

use super::Activity;
use super::entry::Entry;
use super::filter::Filter;
use crate::base::id::ActivityId;

/// How often a viewer looks.
const LOOK: Duration = Duration::from_millis(250);
/// The most entries of one chunk.
const CHUNK: usize = 128;
/// Chunks that may wait for a viewer.
const WAITING: usize = 2;
/// Looks without anything to show until a sign of life is sent: fifteen seconds.
const BEAT: u32 = 60;
/// Looks without anything to show until a viewer is told that its place has moved on: a second.
const TELL: u32 = 4;
/// Looks until a stream ends and is to be asked for anew, so that whoever may not see it any more does not: a quarter
/// of an hour.
const LOOKS: u32 = 3_600;

/// Who looks, and how many may.
#[derive(Debug, Default)]
pub struct Viewers {
    now: Arc<AtomicUsize>,
    most: AtomicUsize,
    patience_millis: AtomicU64,
    /// Refused because there were too many, and let go because they took nothing, since this was last taken.
    refused: AtomicU64,
    slow: Arc<AtomicU64>,
}

impl Viewers {
    pub(super) fn apply(&self, most: usize, patience: Duration) {
        self.most.store(most, Ordering::Relaxed);
        self.patience_millis.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn enter(&self) -> Option<Seat> {
        let most = self.most.load(Ordering::Relaxed);
        let entered = self.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < most).then_some(now + 1));
        if entered.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat(Arc::clone(&self.now)))
    }

    /// How many look now.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// How many were refused, and how many were let go for taking nothing, since this was last asked.
    pub fn taken(&self) -> (u64, u64) {
        (self.refused.swap(0, Ordering::Relaxed), self.slow.swap(0, Ordering::Relaxed))
    }
}

/// A viewer's place, given back when it is dropped.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a stream ended, as its last event tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Farewell {
    /// The viewer went, or the process did: nothing is told.
    None,
    /// Its time is over, or it may not look any more: who asks again is judged again.
    Renew,
    /// It took nothing for too long.
    Slow,
}

/// What a stream shows.
pub struct Wanted {
    /// Which entries.
    pub filter: Filter,
    /// Those after this one; without it, those from now on.
    pub after: Option<ActivityId>,
    /// How an entry is written.
    pub render: Box<dyn Fn(&Entry) -> String + Send + Sync>,
    /// Whether the viewer may still look. Asked at each look, so it must not wait for anything.
    pub may_look: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A stream of events (`text/event-stream`) for one viewer: an entry each, with its id; an id alone, at the beginning and
/// where entries were looked through and none was shown; `gap` where entries between the last id and the next are not kept
/// any more; `renew` and `slow` before it ends. `None` when there are too many viewers. Must be called within the runtime.
pub fn open(
    activity: &Arc<Activity>,
    wanted: Wanted,
) -> Option<impl Stream<Item = Result<Bytes, std::io::Error>> + use<>> {
    let viewers = &activity.viewers;
    let seat = viewers.enter()?;
    let (chunks, waiting) = mpsc::channel(WAITING);
    let farewell = Arc::new(AtomicU8::new(Farewell::None as u8));
    let last = activity.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last();
    // Nobody has seen what there is not yet: an id from elsewhere would hide all that comes.
    let seen = wanted.after.unwrap_or(last).min(last);
    let viewer = Viewer {
        activity: Arc::clone(activity),
        seen,
        told: seen,
        wanted,
        chunks,
        farewell: Arc::clone(&farewell),
        patience: Duration::from_millis(viewers.patience_millis.load(Ordering::Relaxed)),
        _seat: seat,
    };
    drop(tokio::spawn(viewer.run()));
    Some(stream::unfold(Some((waiting, farewell)), |state| async move {
        let (mut waiting, farewell) = state?;
        if let Some(chunk) = waiting.recv().await {
            return Some((Ok(chunk), Some((waiting, farewell))));
        }
        let said = match farewell.load(Ordering::Acquire) {
            said if said == Farewell::Renew as u8 => {
                "event: renew\ndata: the stream goes on when it is asked for again\n\n"
            }
            said if said == Farewell::Slow as u8 => "event: slow\ndata: too little was taken; ask again to go on\n\n",
            _ => return None,
        };
        Some((Ok(Bytes::from_static(said.as_bytes())), None))
    }))
}

struct Viewer {
    activity: Arc<Activity>,
    wanted: Wanted,
    /// Up to where it has looked.
    seen: ActivityId,
    /// The last id that was written.
    told: ActivityId,
    chunks: mpsc::Sender<Bytes>,
    farewell: Arc<AtomicU8>,
    patience: Duration,
    _seat: Seat,
}

impl Viewer {
    async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quiet = 0;
        // The browser comes again after a second, and to this place although nothing has been shown yet.
        let greeting = format!("retry: 1000\n: the activity\n{}", self.place());
        if !self.give(greeting).await {
            return;
        }
        'looks: for _ in 0..LOOKS {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.chunks.closed() => return,
            }
            if self.activity.ended.load(Ordering::Relaxed) {
                return;
            }
            quiet += 1;
            loop {
                if !(self.wanted.may_look)() {
                    break 'looks;
                }
                let Some(shown) = self.look() else { break };
                quiet = 0;
                if !self.give(shown).await {
                    return;
                }
            }
            let life = if quiet >= BEAT { ": still there\n" } else { "" };
            if !life.is_empty() || (quiet >= TELL && self.told < self.seen) {
                quiet = 0;
                let sign = format!("{life}{}", self.place());
                if !self.give(sign).await {
                    return;
                }
            }
        }
        let place = self.place();
        if self.give(place).await {
            self.farewell.store(Farewell::Renew as u8, Ordering::Release);
        }
    }

    /// An event without data, which a browser shows nobody and whose id it comes again with.
    fn place(&mut self) -> String {
        self.told = self.seen;
        format!("id: {}\n\n", self.seen)
    }

    /// What is new since the last look, at most a chunk of it.
    fn look(&mut self) -> Option<String> {
        let newest = self.activity.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if newest.last() <= self.seen {
            return None;
        }
        let snapshot = newest.snapshot_after(self.seen);
        drop(newest);
        let mut shown = String::new();
        if snapshot.gone() > self.seen {
            shown.push_str("event: gap\ndata: entries between are not kept any more\n\n");
            self.seen = snapshot.gone();
        }
        let (mut last, mut count) = (self.seen, 0);
        for entry in snapshot.after(self.seen) {
            last = entry.id;
            if !self.wanted.filter.selects(entry) {
                continue;
            }
            write_event(&mut shown, entry.id, &(self.wanted.render)(entry));
            self.told = entry.id;
            count += 1;
            if count == CHUNK {
                break;
            }
        }
        self.seen = last;
        if shown.is_empty() {
            return None;
        }
        if self.told < self.seen {
            shown.push_str(&self.place());
        }
        Some(shown)
    }

    /// Whether the viewer takes it in time.
    async fn give(&self, text: String) -> bool {
        match tokio::time::timeout(self.patience, self.chunks.send(Bytes::from(text))).await {
            Ok(sent) => sent.is_ok(),
            Err(_elapsed) => {
                self.activity.viewers.slow.fetch_add(1, Ordering::Relaxed);
                self.farewell.store(Farewell::Slow as u8, Ordering::Release);
                false
            }
        }
    }
}

/// An event. A line break in its data would end it, so each line is one of its own.
fn write_event(out: &mut String, id: ActivityId, data: &str) {
    use std::fmt::Write as _;
    _ = writeln!(out, "id: {id}");
    for line in data.split(['\n', '\r']) {
        _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::AtomicBool;

    use futures_util::StreamExt as _;

    use super::super::CallRecord;
    use super::super::tests::call;
    use super::*;
    use crate::definition::plan::gateway::Activity as Settings;

    fn wanted(after: Option<ActivityId>, failed: Option<bool>) -> Wanted {
        let filter = Filter { failed, ..Filter::default() };
        let render = Box::new(|entry: &Entry| format!("{}\n{}", entry.at.seconds(), entry.path));
        Wanted { filter, after, render, may_look: Box::new(|| true) }
    }

    async fn next(stream: &mut Pin<Box<impl Stream<Item = Result<Bytes, std::io::Error>>>>) -> String {
        let chunk = stream.next().await.expect("more").expect("infallible");
        String::from_utf8(chunk.to_vec()).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_sees_what_it_asked_for_and_goes_on_where_it_was() {
        let activity = Arc::new(Activity::default());
        activity.record(call(1));
        let mut stream = Box::pin(open(&activity, wanted(None, Some(true))).expect("room"));
        assert!(next(&mut stream).await.starts_with("retry: "));
        activity.record(call(2));
        activity.record(CallRecord { status: Some(500), ..call(3) });
        let shown = next(&mut stream).await;
        let newest = activity.newest(1, |_| true).remove(0).id;
        assert_eq!(shown, format!("id: {newest}\ndata: 3\ndata: /\n\n"));
        assert_eq!(next(&mut stream).await, format!(": still there\nid: {newest}\n\n"));
        assert_eq!(activity.viewers().now(), 1);
        drop(stream);
        activity.record(call(4));
        let mut stream = Box::pin(open(&activity, wanted(Some(newest), None)).expect("room"));
        next(&mut stream).await;
        assert!(next(&mut stream).await.ends_with("data: 4\ndata: /\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_shown_nothing_goes_on_where_it_looked_last_and_has_missed_nothing() {
        let activity = Arc::new(Activity::default());
        activity.apply(Settings { keep: 2, ..Settings::default() });
        activity.record(call(1));
        let newest = || activity.newest(1, |_| true).remove(0).id;
        let mut stream = Box::pin(open(&activity, wanted(None, Some(true))).expect("room"));
        assert!(next(&mut stream).await.ends_with(&format!("\nid: {}\n\n", newest())));
        // None of these fits, and most are not kept any more when it comes again.
        for number in 2..6 {
            activity.record(call(number));
            tokio::time::sleep(LOOK * 2).await;
        }
        let place = newest();
        while next(&mut stream).await != format!("id: {place}\n\n") {}
        drop(stream);
        activity.record(CallRecord { status: Some(500), ..call(6) });
        let mut stream = Box::pin(open(&activity, wanted(Some(place), Some(true))).expect("room"));
        next(&mut stream).await;
        assert_eq!(next(&mut stream).await, format!("id: {}\ndata: 6\ndata: /\n\n", newest()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_kept_any_more_is_told_as_a_gap() {
        let activity = Arc::new(Activity::default());
        activity.apply(Settings { keep: 2, ..Settings::default() });
        activity.record(call(1));
        let first = activity.newest(1, |_| true).remove(0).id;
        (2..6).for_each(|number| activity.record(call(number)));
        let mut stream = Box::pin(open(&activity, wanted(Some(first), None)).expect("room"));
        next(&mut stream).await;
        let shown = next(&mut stream).await;
        assert!(shown.starts_with("event: gap\n") && shown.matches("id: ").count() == 2, "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go_and_told_and_no_more_come_than_may() {
        let activity = Arc::new(Activity::default());
        let settings = Settings { viewers: 1, viewer_timeout: Duration::from_secs(3), ..Settings::default() };
        activity.apply(settings);
        let mut stream = Box::pin(open(&activity, wanted(None, None)).expect("room"));
        assert!(open(&activity, wanted(None, None)).is_none());
        for number in 1..20 {
            activity.record(call(number));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((activity.viewers().now(), activity.viewers().taken()), (0, (1, 1)));
        let mut all = String::new();
        while let Some(chunk) = stream.next().await {
            all.push_str(std::str::from_utf8(&chunk.expect("infallible")).expect("text"));
        }
        assert!(all.ends_with("event: slow\ndata: too little was taken; ask again to go on\n\n"), "{all}");
        assert!(all.matches("id: ").count() < 19, "it had no room for all");
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_look_any_more_is_shown_nothing_further() {
        let activity = Arc::new(Activity::default());
        let may = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&may);
        let may_look = Box::new(move || asked.load(Ordering::Relaxed));
        let mut stream = Box::pin(open(&activity, Wanted { may_look, ..wanted(None, None) }).expect("room"));
        next(&mut stream).await;
        activity.record(call(1));
        assert!(next(&mut stream).await.ends_with("data: 1\ndata: /\n\n"));
        may.store(false, Ordering::Relaxed);
        activity.record(call(2));
        let rest = tokio::time::timeout(LOOK * 2, stream.collect::<Vec<_>>()).await.expect("it ends soon");
        let rest: Vec<_> = rest.into_iter().map(|chunk| chunk.expect("infallible")).collect();
        let rest = String::from_utf8(rest.concat()).expect("text");
        assert!(!rest.contains("data: 2") && rest.contains("event: renew\n"), "{rest}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_the_process_and_after_a_while() {
        let activity = Arc::new(Activity::default());
        let stream = open(&activity, wanted(None, None)).expect("room");
        let all: Vec<_> = stream.collect().await;
        let last = all.last().expect("some").as_ref().expect("infallible");
        assert!(last.starts_with(b"event: renew"), "{last:?}");
        let stream = open(&activity, wanted(None, None)).expect("room");
        activity.end_streams();
        assert_eq!(stream.count().await, 1);
    }
}
