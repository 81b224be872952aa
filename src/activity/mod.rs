//! What happened, for people: the newest calls and webhooks, bounded and never in a call's way.
//!
//! Holds no query strings, and of headers and bodies what [`content`] says. Written by `outbound`, `proxy`, `connection` and `webhook`, read
//! by `admin`. An entry is in memory at once ([`ring`]), where everything is looked for, and a moment later in a file
//! ([`write`], [`files`]), from which the next start reads it back. [`keep`] takes over settings, lets go of what is
//! old, and writes into the audit log what [`tally`] counted. [`filter`] says which entries are meant, [`stream`] shows
//! them as they come.

pub mod content;
pub mod entry;
pub mod files;
pub mod filter;
pub mod keep;
pub mod ring;
pub mod stream;
pub mod tally;
mod wanted;
pub mod write;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;
use crate::definition::plan::gateway::Activity as Settings;
use crate::telemetry::trace::{self, TraceId};
use crate::usage::Usage;
use content::{Content, Contents};
use entry::Entry;
use files::{Bounds, Files, Place};
use ring::{Ring, Snapshot};
use tally::Tally;
use wanted::Wanted;
use write::{Settled, Standing, Writer};

/// The share that is all.
const WHOLE: u64 = 1_000_000;

/// A call to a service, or a webhook, that has ended.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// When it began.
    pub at: Timestamp,
    /// The generation it belonged to.
    pub generation: u64,
    /// The integration.
    pub integration: Arc<str>,
    /// The connection.
    pub connection: Arc<str>,
    /// Who asked for it.
    pub asker: Asker,
    /// The endpoint, where it was one.
    pub endpoint: Option<Arc<str>>,
    /// The method.
    pub method: Method,
    /// Scheme, host and port that were called.
    pub origin: Arc<str>,
    /// The path, without the query.
    pub path: String,
    /// The service's status; none when there was no answer.
    pub status: Option<u16>,
    /// The gateway's error code, when the call did not succeed.
    pub error: Option<&'static str>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of the body that were sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body that were received.
    pub received_bytes: u64,
    /// How it went on its way.
    pub course: Course,
    /// What is told of it besides.
    pub told: Told,
}

/// What is told of a call where it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The id of its request at the proxy door.
    pub request_id: Option<Box<str>>,
    /// What led to its error, the nearest first, in words without secrets.
    pub causes: Vec<String>,
    /// The trace it belongs to.
    pub trace: Option<TraceId>,
    /// What it carried, where [`Activity::keeps_content`] says that it is kept.
    pub content: Option<Box<Content>>,
}

impl Told {
    /// What an error says, and what each of those says that led to it.
    pub fn of_error(error: &dyn std::error::Error) -> Self {
        let chain = std::iter::successors(Some(error), |error| error.source());
        Self { causes: chain.map(ToString::to_string).collect(), ..Self::default() }
    }

    /// That it belongs to the trace of the present work, where that belongs to one.
    #[must_use]
    pub fn traced(self) -> Self {
        Self { trace: trace::current().map(|place| place.trace), ..self }
    }
}

/// How a call went on its way to the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Course {
    /// How often it was tried, tries of which nothing was sent among them; zero for a call that was answered or
    /// refused here.
    pub attempts: u32,
    /// Of how many of these tries nothing was sent; streamed calls of the proxy door do not tell.
    pub unsent: u32,
    /// How long it waited: for its turns under the limits, and between tries.
    pub waited: Duration,
    /// What the cache made of it, where its answer may be kept: a word of `trunkline_cache_requests_total`.
    pub cache: Option<&'static str>,
}

impl Course {
    /// Of a call that was tried once.
    pub const ONCE: Self = Self { attempts: 1, unsent: 0, waited: Duration::ZERO, cache: None };

    /// How many bytes it sent, whose body has so many.
    pub const fn sent_of(&self, body: u64) -> u64 {
        if self.attempts > self.unsent { body } else { 0 }
    }
}

/// Who asked for a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "is", content = "id")]
#[schema(as = ActivityAsker)]
pub enum Asker {
    /// An application, at the proxy door.
    Caller(Arc<str>),
    /// A delivery.
    Delivery(String),
    /// A person who connects an account.
    Connect,
    /// A person or the gateway itself, to see whether a connection works.
    Test,
    /// A person, to have a service send its events to an endpoint, or the gateway itself, to have it stop.
    Webhook,
    /// The gateway itself, to get, renew or give back a token.
    SignIn,
    /// The cache, which brings an answer up to date after it was given once more.
    Cache,
    /// The service itself, with a webhook; the event that was made of it.
    Event(String),
}

fn as_text<S: serde::Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

fn is_failure(asker: &Asker, has_error: bool, status: Option<u16>) -> bool {
    let unanswered = || !matches!(asker, Asker::Connect);
    has_error || status.map_or_else(unanswered, |status| status >= 400)
}

impl CallRecord {
    fn has_failed(&self) -> bool {
        is_failure(&self.asker, self.error.is_some(), self.status)
    }
}

/// The newest entries, and the count of all calls since the last line in the audit log.
#[derive(Debug)]
pub struct Activity {
    newest: Mutex<Ring>,
    contents: Mutex<Contents>,
    wanted: Wanted,
    writer: RwLock<Option<Writer>>,
    tally: Tally,
    keep: AtomicUsize,
    retain_millis: AtomicU64,
    bytes: AtomicU64,
    /// Of a million calls that succeed, so many are remembered.
    sample: AtomicU64,
    succeeded: AtomicU64,
    viewers: stream::Viewers,
    ended: AtomicBool,
    usage: Arc<Usage>,
}

impl Default for Activity {
    fn default() -> Self {
        let activity = Self {
            newest: Mutex::default(),
            contents: Mutex::default(),
            wanted: Wanted::default(),
            writer: RwLock::default(),
            tally: Tally::default(),
            keep: AtomicUsize::new(0),
            retain_millis: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            sample: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            viewers: stream::Viewers::default(),
            ended: AtomicBool::new(false),
            usage: Arc::default(),
        };
        activity.apply(Settings::default());
        activity.begin_second();
        activity
    }
}

impl Activity {
    /// With what the files have of the time before, and a thread that writes into them and counts for `usage`. Reads
    /// files, so call it where that may take its time.
    ///
    /// # Errors
    /// When the files cannot be read, or the system has no thread for it.
    pub fn open(place: Place, usage: Usage, (settings, now): (Settings, Timestamp)) -> io::Result<Self> {
        let activity = Self { usage: Arc::new(usage), ..Self::default() };
        activity.apply(settings);
        let wanted = (settings.keep, activity.wanted.memory());
        let (files, entries) = Files::open(place, wanted, now.before(settings.retain))?;
        let (mut newest, mut contents) = (Ring::default(), Contents::default());
        for mut entry in entries {
            if let Some(content) = entry.content.take() {
                entry.content = contents.push(entry.id, content);
            }
            newest.push(Arc::new(entry));
        }
        let settled = Settled { bounds: activity.bounds(), gone: newest.snapshot().gone(), now };
        let writer = Writer::start(files, Arc::clone(&activity.usage), settled)?;
        let (newest, contents) = (Mutex::new(newest), Mutex::new(contents));
        Ok(Self { newest, contents, writer: RwLock::new(Some(writer)), ..activity })
    }

    /// Takes settings over, and lets go of what is too much by them.
    pub fn apply(&self, settings: Settings) {
        let gone = self.newest.lock().unwrap_or_else(PoisonError::into_inner).keep(settings.keep);
        drop(gone);
        self.keep.store(settings.keep, Ordering::Relaxed);
        let millis = u64::try_from(settings.retain.as_millis()).unwrap_or(u64::MAX);
        self.retain_millis.store(millis, Ordering::Relaxed);
        self.bytes.store(settings.bytes, Ordering::Relaxed);
        self.sample.store(u64::from(settings.sample_millionths), Ordering::Relaxed);
        self.viewers.apply(settings.viewers, settings.viewer_timeout);
        self.wanted.apply(settings.content);
    }

    /// How many bytes of a body are gathered for a call that may end in a way of which the content is kept; zero where
    /// none is.
    pub fn content_bytes(&self) -> usize {
        if self.wants_content(true) { self.wanted.bytes() } else { 0 }
    }

    /// Whether the settings want the content of calls that end so.
    pub fn wants_content(&self, has_failed: bool) -> bool {
        self.wanted.of(has_failed)
    }

    /// Whether the content of a call is kept that has ended so: where it is wanted, and where there were not too many in
    /// this second. Each is to be told at most once of a call.
    pub fn keeps_content(&self, has_failed: bool) -> bool {
        self.wants_content(has_failed) && (has_failed || self.is_next_sampled()) && self.wanted.take(has_failed)
    }

    /// Another second has begun: as many contents as the settings say may be kept in it.
    pub fn begin_second(&self) {
        self.wanted.begin_second();
    }

    /// How many contents were left out since this was last asked, because there were too many in a second; and bytes of
    /// all in memory.
    pub fn contents(&self) -> (u64, usize) {
        let bytes = self.contents.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        (self.wanted.dropped(), bytes)
    }

    /// Lets go of contents that have no room, or no entry any more.
    fn keep_contents(&self, contents: &mut Contents, gone: ActivityId) -> Vec<Arc<Content>> {
        contents.keep(self.wanted.memory(), gone)
    }

    fn bounds(&self) -> Bounds {
        let retain = Duration::from_millis(self.retain_millis.load(Ordering::Relaxed));
        Bounds { bytes: self.bytes.load(Ordering::Relaxed), retain }
    }

    /// Counts a call, and remembers it: each that failed, and of the others the share that the settings want. Lets go
    /// of the oldest where there are too many. Never waits for a disk or a reader.
    pub fn record(&self, mut call: CallRecord) {
        self.tally.count(&call);
        let keep = self.keep.load(Ordering::Relaxed);
        let is_kept = keep > 0 && (call.has_failed() || self.is_sampled());
        let ended = call.at.after(Duration::from_millis(call.duration_ms));
        let content = call.told.content.take().map(|content| Arc::new(*content));
        let mut entry = Entry::of(ActivityId::default(), call);
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            write::count(&self.usage, &entry);
        }
        if !is_kept {
            if let Some(writer) = &*writer {
                writer.count(Box::new(entry));
            }
            return;
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        entry.id = ActivityId::following(newest.last(), ended);
        let mut crowded = Vec::new();
        if let Some(content) = content {
            let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
            entry.content = contents.push(entry.id, content);
            crowded = self.keep_contents(&mut contents, newest.gone());
        }
        let entry = Arc::new(entry);
        newest.push(Arc::clone(&entry));
        let gone = newest.keep(keep);
        // Within the lock, so that the files have them in the order of their ids.
        if let Some(writer) = &*writer {
            writer.write(entry);
        }
        drop(newest);
        // What is let go is freed outside the lock.
        drop((gone, crowded));
    }

    /// Whether the next call that succeeds is remembered: evenly spread, without chance.
    fn is_sampled(&self) -> bool {
        self.sample.load(Ordering::Relaxed) >= WHOLE || self.samples(self.succeeded.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether it would be, if it ended now. Where several end at once one may be taken for another.
    fn is_next_sampled(&self) -> bool {
        self.sample.load(Ordering::Relaxed) >= WHOLE || self.samples(self.succeeded.load(Ordering::Relaxed))
    }

    fn samples(&self, number: u64) -> bool {
        let share = self.sample.load(Ordering::Relaxed);
        let until = |count: u64| u128::from(count) * u128::from(share) / u128::from(WHOLE);
        until(number.wrapping_add(1)) > until(number)
    }

    /// Lets go of what is older than the settings want, and of what has no file any more; has the files looked through.
    pub fn retire(&self, now: Timestamp) {
        let bounds = self.bounds();
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        let lost = writer.as_ref().map_or(0, |writer| writer.standing().lost.load(Ordering::Relaxed));
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let freed = newest.retire(now.before(bounds.retain), ActivityId::from_u64(lost));
        let gone = if newest.is_empty() { newest.last() } else { newest.gone() };
        drop(newest);
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let let_go = self.keep_contents(&mut contents, gone);
        drop(contents);
        drop((freed, let_go));
        match &*writer {
            Some(writer) => writer.tidy(Settled { bounds, gone, now }),
            // Without files it waits for no disk.
            None => self.usage.tidy(now),
        }
    }

    /// How many are kept at most.
    pub fn capacity(&self) -> usize {
        self.keep.load(Ordering::Relaxed)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries are missing in the files since this was last asked, and bytes of all files.
    pub fn standing(&self) -> (u64, u64) {
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        let told = |standing: &Standing| (standing.dropped(), standing.bytes.load(Ordering::Relaxed));
        writer.as_ref().map_or((0, 0), |writer| told(writer.standing()))
    }

    /// How many calls are not in the usage since this was last asked, because the thread that counts could not follow.
    pub fn uncounted(&self) -> u64 {
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map_or(0, |writer| writer.standing().uncounted())
    }

    /// What is counted by the minute.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// What is counted for the audit log.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// All that are kept, as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    /// The newest that fit, newest first, at most `max`.
    pub fn newest(&self, max: usize, fits: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.snapshot().newest().filter(|entry| fits(entry)).take(max).cloned().collect()
    }

    /// Who looks at the live stream.
    pub fn viewers(&self) -> &stream::Viewers {
        &self.viewers
    }

    /// Ends the live streams. Nobody is shown anything after this.
    pub fn end_streams(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Writes what waits into the files, and ends the thread that does. What is recorded after this is in memory alone.
    /// Waits for the disk.
    pub fn close(&self) {
        let writer = self.writer.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.close();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::activity) fn call(number: u64) -> CallRecord {
        CallRecord {
            at: Timestamp::from_seconds(number),
            generation: 1,
            integration: Arc::from("a"),
            connection: Arc::from("default"),
            asker: Asker::Test,
            endpoint: None,
            method: Method::GET,
            origin: Arc::from("https://a.example"),
            path: "/".to_owned(),
            status: Some(200),
            error: None,
            duration_ms: 1,
            sent_bytes: 0,
            received_bytes: 0,
            course: Course::ONCE,
            told: Told::default(),
        }
    }

    #[test]
    fn a_call_without_an_answer_failed_and_a_connect_flow_without_an_error_did_not() {
        let ended = |asker, status, error| CallRecord { asker, status, error, ..call(1) }.has_failed();
        assert!(ended(Asker::Test, None, None) && ended(Asker::Test, Some(404), None));
        assert!(ended(Asker::Test, Some(200), Some("internal")) && !ended(Asker::Test, Some(399), None));
        assert!(!ended(Asker::Connect, None, None) && ended(Asker::Connect, None, Some("denied")));
    }

    #[test]
    fn the_newest_are_kept_and_the_oldest_let_go() {
        let activity = Activity::default();
        activity.apply(Settings { keep: 20, ..Settings::default() });
        (0..25).for_each(|number| activity.record(call(number)));
        let kept = activity.newest(100, |_| true);
        assert_eq!((kept.len(), kept[0].at.seconds()), (20, 24));
        assert_eq!(activity.newest(1, |call| call.at.seconds() == 3).len(), 0);
        activity.apply(Settings { keep: 5, ..Settings::default() });
        activity.record(call(25));
        assert_eq!(activity.newest(100, |_| true).len(), 5);
        activity.apply(Settings { keep: 0, ..Settings::default() });
        activity.record(call(26));
        assert_eq!(activity.newest(100, |_| true).len(), 0);
    }

    #[test]
    fn a_share_of_what_succeeds_is_kept_and_all_that_fails() {
        let activity = Activity::default();
        activity.apply(Settings { sample_millionths: 100_000, ..Settings::default() });
        (0..100).for_each(|number| activity.record(call(number)));
        assert_eq!(activity.newest(100, |_| true).len(), 10);
        (0..5).for_each(|number| activity.record(CallRecord { status: Some(404), ..call(number) }));
        activity.record(CallRecord { error: Some("service_held"), status: None, ..call(1) });
        assert_eq!(activity.newest(100, |_| true).len(), 16);
        let counted: u64 = activity.tally().take().counted.iter().map(|counted| counted.calls).sum();
        assert_eq!(counted, 106, "what is not kept is counted all the same");
    }

    #[test]
    fn what_is_old_is_let_go() {
        let activity = Activity::default();
        activity.apply(Settings { retain: Duration::from_mins(1), ..Settings::default() });
        (0..10).for_each(|number| activity.record(call(1_000 + number * 10)));
        activity.retire(Timestamp::from_seconds(1_100));
        let kept = activity.newest(100, |_| true);
        assert_eq!((kept.len(), kept[5].at.seconds()), (6, 1_040));
    }

    #[test]
    fn a_record_is_shown_in_full() {
        let activity = Activity::default();
        let course =
            Course { attempts: 2, waited: Duration::from_millis(30), cache: Some("miss"), ..Course::default() };
        activity.record(CallRecord { course, ..call(1) });
        let kept = activity.newest(1, |_| true);
        let shown = serde_json::to_value(&*kept[0]).expect("JSON");
        assert_eq!([&shown["attempts"], &shown["waited_ms"]], [2, 30]);
        assert_eq!(shown["cache"], "miss");
        assert_eq!(serde_json::to_value(&*kept[0]).expect("JSON")["asker"]["is"], "test");
    }

    #[test]
    fn what_happened_is_there_after_another_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = || Place {
            store: directory.path().to_owned(),
            min_free: crate::base::units::Reserve::Bytes(0),
            disk: Arc::new(crate::store::disk::SystemDisk),
        };
        let settings = Settings { keep: 5, ..Settings::default() };
        let open =
            |now| Activity::open(place(), Usage::default(), (settings, Timestamp::from_seconds(now))).expect("files");
        let activity = open(100);
        (0..8).for_each(|number| activity.record(call(100 + number)));
        let before = activity.newest(100, |_| true);
        activity.close();
        activity.record(call(200));
        assert_eq!(activity.standing(), (0, 0), "a closed writer tells nothing");
        let activity = open(110);
        assert_eq!(activity.newest(100, |_| true), before);
        activity.record(call(50));
        let ids: Vec<_> = activity.newest(2, |_| true).iter().map(|entry| entry.id).collect();
        assert!(ids[0] > ids[1], "a clock that went back gives no id twice");
        activity.close();
        let week = settings.retain.as_secs();
        assert_eq!(open(106 + week).len(), 2, "what is too old is not read back");
    }
}
