//! Log lines: text for people, JSON for machines, never in the way of a request.
//!
//! Lines go to standard error through a bounded queue and a thread of its own; when the reader of the log
//! cannot keep up, lines are dropped and counted. Secrets are kept out by type; the redaction here is a
//! second wall for what libraries say, such as a URL with its query. Called by `cli` at start.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};

use regex::Regex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::base::plain::{self, is_invisible};

/// Lines that may wait to be written.
const QUEUE: usize = 4_096;
/// Libraries whose news is nothing an operator can act on. What `pingora_core::apps` calls an error is a client that does
/// not speak HTTP/2, and `pingora_proxy::proxy_trait` one that reset a stream before it was answered, as often as it likes;
/// neither says anything else.
const QUIET: &str = "pingora_core=error,pingora_core::apps=off,pingora_proxy=error,pingora_proxy::proxy_trait=off,pingora_pool=error,sled=warn,hickory_resolver=warn,\
    hickory_proto=warn,hyper=warn,hyper_util=warn,rustls=warn,h2=warn,reqwest=warn,notify=warn";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message` and the fields.
    Json,
}

/// The log in operation. Dropping it writes what still waits.
#[derive(Debug)]
pub struct Log {
    sender: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
    dropped: Arc<AtomicU64>,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("`{0}` is not a log filter: expected a level, or `target=level` separated by commas")]
    Filter(String),
    /// A log is in operation already.
    #[error("the log is in operation already")]
    Twice,
    /// The system refused a thread.
    #[error("no thread for the log: {0}")]
    Thread(#[from] io::Error),
}

impl Log {
    /// Begins to log. `filter` is a level such as `info`, or `target=level` pairs; what it says of a
    /// target wins over the levels by which libraries are kept quiet.
    ///
    /// # Errors
    /// When the filter is not one, or the process logs already.
    pub fn start(format: Format, terminal: bool, filter: &str) -> Result<Self, LogError> {
        let rules = format!("{QUIET},{filter}");
        let filter = EnvFilter::builder().parse(rules).map_err(|_| LogError::Filter(filter.to_owned()))?;
        let dropped = Arc::new(AtomicU64::new(0));
        let (sender, lines) = sync_channel(QUEUE);
        let lost = Arc::clone(&dropped);
        let thread =
            thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&lines, &lost, io::stderr()))?;
        let json = match format {
            Format::Auto => !terminal,
            Format::Text => false,
            Format::Json => true,
        };
        let queue = Queue { sender: sender.clone(), dropped: Arc::clone(&dropped), json };
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue);
        let started = if json {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        } else {
            builder.with_ansi(terminal).with_target(false).try_init()
        };
        started.map_err(|_| LogError::Twice)?;
        Ok(Self { sender: Some(sender), thread: Some(thread), dropped })
    }

    /// Lines that were dropped since the start because nobody read them in time.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The subscriber keeps a sender for as long as the process lives, so the thread is told to end
        // by an empty line, which no event makes.
        if let Some(sender) = self.sender.take() {
            drop(sender.send(Vec::new()));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn write_all(lines: &Receiver<Vec<u8>>, lost: &AtomicU64, mut out: impl Write) {
    let mut told = 0;
    while let Ok(line) = lines.recv() {
        if line.is_empty() {
            break;
        }
        let now = lost.load(Ordering::Relaxed);
        let note = (now > told).then(|| format!("trunkline: {} log lines were dropped\n", now - told));
        told = now;
        let written = out.write_all(note.unwrap_or_default().as_bytes()).and_then(|()| out.write_all(&line));
        if written.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes whole lines: the formatter writes each event at once.
#[derive(Debug, Clone)]
struct Queue {
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    /// Whether lines are JSON, which has escapes of its own.
    json: bool,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = redact(&text);
        if self.sender.try_send(visible(&text, self.json).into_owned().into_bytes()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What may stand before a secret in a text, and the stretch that is taken out.
#[expect(clippy::expect_used, reason = "the pattern is a literal that a test compiles")]
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?ix)
        (?P<scheme> \b (?:bearer|basic) \s+ ) [a-z0-9._~+/=-]{6,}
        | (?P<field> \b (?:authorization|cookie|[a-z_-]*api[_-]?key|[a-z_]*secret|[a-z_]*token|password)
            \\? "? \s* [:=] \s* \\? "? ) (?: (?:bearer|basic) \s+ )? [^\s",&}]+
        | (?P<query> [a-z0-9/.%_:@-] \? ) [a-z0-9_.\[\]%-]+ = [^\s"<>]*
        | (?P<prefix> \b (?:trunkline-key-1\.[0-9a-f]+\.|(?:whsec|sk_live|sk_test|rk_live|rk_test|xox[abpr]|gh[pousr])[_-]) ) [a-z0-9+/=_-]{6,}
        "#,
    )
    .expect("a literal pattern")
});

/// The text without query strings and without what looks like a credential.
pub fn redact(text: &str) -> Cow<'_, str> {
    SECRETS.replace_all(text, "${scheme}${field}${query}${prefix}…")
}

/// The text with what shows nothing, and may turn or hide what is around it, written out.
fn visible(text: &str, json: bool) -> Cow<'_, str> {
    if text.is_ascii() || !text.chars().any(is_invisible) {
        return Cow::Borrowed(text);
    }
    if json {
        return plain::in_json(text);
    }
    let written = |c: char| if is_invisible(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(written).collect())
}

/// A panic as a line in the log. A message that was put together at run time may hold anything and is not
/// shown; the place is.
pub fn on_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("message withheld");
    let thread = thread::current().name().unwrap_or("unnamed").to_owned();
    tracing::error!(panic.place = %place, panic.thread = %thread, "panic at {place}: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_text_is_written_out() {
        let text = "a\u{202e}b\u{2066}c\u{e0041} Zo\u{eb} \u{1b}[1m";
        assert_eq!(visible(text, false), "a\\u{202e}b\\u{2066}c\\u{e0041} Zo\u{eb} \u{1b}[1m");
        let line = format!("{{\"message\":\"{}\"}}", visible("a\u{202e}b\u{e0041}", true));
        assert!(line.is_ascii(), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["message"], "a\u{202e}b\u{e0041}");
    }

    #[test]
    fn credentials_and_queries_do_not_pass() {
        let cases = [
            ("Authorization: Bearer abcdef123456 sent", "Authorization: … sent"),
            ("sent basic dXNlcjpwYXNz now", "sent basic … now"),
            ("GET https://a.example/x?code=s3cret&state=1 failed", "GET https://a.example/x?… failed"),
            (r#"{"access_token":"s3cret","ok":true}"#, r#"{"access_token":"…","ok":true}"#),
            ("client_secret=s3cret&x=1", "client_secret=…&x=1"),
            ("key trunkline-key-1.00ff.AAAAAAAA read", "key trunkline-key-1.00ff.… read"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn ordinary_lines_pass_unchanged() {
        for text in [
            "github.yaml:3:1 unknown field `tokn`: did you mean `token`?",
            "listening on http://127.0.0.1:8081",
            "is it ready? yes = no",
            "the token was refreshed",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn a_client_that_resets_its_streams_makes_no_errors_of_the_library() {
        let filter = EnvFilter::builder().parse(format!("{QUIET},info")).expect("a filter");
        let (sender, lines) = sync_channel(8);
        let queue = Queue { sender, dropped: Arc::default(), json: false };
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(queue).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "pingora_proxy::proxy_trait", "failed to send error response to downstream");
            tracing::error!(target: "pingora_proxy", "broken");
        });
        let lines: Vec<_> = lines.try_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
        assert!(lines.len() == 1 && lines[0].contains("broken"), "{lines:?}");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (sender, lines) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut queue = Queue { sender, dropped: Arc::clone(&dropped), json: false };
        for _ in 0..3 {
            queue.write_all(b"line\n").expect("never fails");
        }
        drop(queue);
        let mut out = Vec::new();
        write_all(&lines, &dropped, &mut out);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        assert_eq!(String::from_utf8_lossy(&out), "trunkline: 2 log lines were dropped\nline\n");
    }
}
