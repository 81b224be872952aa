//! What a template sees: a few named values, the expensive ones made only when read.

use std::fmt;
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

use crate::base::clock::Timestamp;
use crate::base::random::Random;

/// The named values of one evaluation. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Context(Arc<Scope>);

type Maker = Box<dyn Fn() -> Value + Send + Sync>;

#[derive(Default)]
struct Scope {
    entries: Vec<(&'static str, Entry)>,
}

#[derive(Clone)]
enum Entry {
    Ready(Value),
    Lazy(Arc<(OnceLock<Value>, Maker)>),
}

impl Entry {
    fn value(&self) -> Value {
        match self {
            Self::Ready(value) => value.clone(),
            Self::Lazy(lazy) => lazy.0.get_or_init(|| (lazy.1)()).clone(),
        }
    }
}

impl Context {
    /// A context in which nothing is defined.
    pub fn new() -> Self {
        Self::default()
    }

    /// This context with `name` as well; a later value of a name hides an earlier one.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<Value>) -> Self {
        self.entry(name, Entry::Ready(value.into()))
    }

    /// This context with a JSON value.
    #[must_use]
    pub fn with_json(self, name: &'static str, value: &serde_json::Value) -> Self {
        self.with(name, from_json(value))
    }

    /// This context with a value that `make` gives when a template first reads it. For bodies, whose
    /// parsing costs more than all else together.
    #[must_use]
    pub fn with_lazy(self, name: &'static str, make: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.entry(name, Entry::Lazy(Arc::new((OnceLock::new(), Box::new(make)))))
    }

    /// This context with `now` in seconds, and with `uuid` (RFC 9562, version 4) and `nonce`, which are made
    /// of randomness when a template first reads them, once for all that share the context.
    #[must_use]
    pub fn with_moment(self, now: Timestamp, random: Arc<dyn Random>) -> Self {
        let other = Arc::clone(&random);
        let uuid = move || {
            let mut bytes = [0_u8; 16];
            // Without randomness there is no value, and a template that needs one fails.
            if random.fill(&mut bytes).is_err() {
                return Value::UNDEFINED;
            }
            bytes[6] = bytes[6] & 0x0f | 0x40;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            let digits = hex(&bytes);
            let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
            Value::from(parts.join("-"))
        };
        let nonce = move || {
            let mut bytes = [0_u8; 16];
            other.fill(&mut bytes).map_or(Value::UNDEFINED, |()| Value::from(hex(&bytes)))
        };
        self.with("now", now.seconds()).with_lazy("uuid", uuid).with_lazy("nonce", nonce)
    }

    /// This context with headers, looked up without regard to case; of several with one name the
    /// first is seen.
    #[must_use]
    pub fn with_headers<'a>(self, name: &'static str, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.with(name, Headers::from_pairs(headers))
    }

    /// The same with the headers of a request, none of which is copied before it is read.
    #[must_use]
    pub fn with_sent_headers(self, name: &'static str, headers: Arc<HeaderMap>) -> Self {
        self.with(name, Value::from_object(Sent(headers)))
    }

    fn entry(self, name: &'static str, entry: Entry) -> Self {
        let mut scope = match Arc::try_unwrap(self.0) {
            Ok(scope) => scope,
            Err(shared) => Scope { entries: shared.entries.clone() },
        };
        scope.entries.retain(|(known, _)| *known != name);
        scope.entries.push((name, entry));
        Self(Arc::new(scope))
    }

    pub(super) fn root(&self) -> Value {
        Value::from_dyn_object(Arc::clone(&self.0))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A JSON value as a template sees it.
fn from_json(value: &serde_json::Value) -> Value {
    Value::from(minijinja::value::Serde(value))
}

impl fmt::Debug for Scope {
    /// Names only: values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.iter().map(|(name, _)| name)).finish()
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, entry)| entry.value())
    }
}

/// Headers as a map whose keys are found in any case.
#[derive(Debug)]
pub struct Headers(Vec<(String, Value)>);

impl Headers {
    /// Headers from names and values; of several with one name the first is seen.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
        let mut seen: Vec<(String, Value)> = Vec::new();
        for (name, value) in pairs {
            let name = name.to_ascii_lowercase();
            if seen.iter().all(|(known, _)| *known != name) {
                seen.push((name, Value::from(value)));
            }
        }
        Value::from_object(Self(seen))
    }
}

impl Object for Headers {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(name.as_str())).collect())
    }
}

/// The headers of a request, as [`Headers`] has them. A value that is no text is not seen.
#[derive(Debug)]
struct Sent(Arc<HeaderMap>);

impl Sent {
    fn seen(&self, name: &str) -> Option<&str> {
        self.0.get_all(name).iter().find_map(|value| value.to_str().ok())
    }
}

impl Object for Sent {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.seen(key).map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.0.keys().map(http::HeaderName::as_str).filter(|name| self.seen(name).is_some());
        Enumerator::Values(names.map(Value::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::template::Expr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_call_has_one_moment_and_one_of_each_random_value() {
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(7));
        let context = || Context::new().with_moment(Timestamp::from_millis(1_999), Arc::clone(&random));
        let text = |context: &Context, source| Expr::compile(source).and_then(|expr| expr.text(context));
        let (first, second) = (context(), context());
        let uuid = text(&first, "uuid").expect("a value").expect("a text");
        let parts: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!((parts, uuid.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'));
        assert_eq!(text(&first, "uuid"), Ok(Some(uuid)));
        assert_ne!(text(&first, "uuid"), text(&second, "uuid"));
        assert_eq!(text(&first, "(nonce | length) ~ ' ' ~ now"), Ok(Some("32 1".to_owned())));
    }

    #[test]
    fn sent_headers_are_seen_as_pairs_are() {
        let pairs =
            [("x-event", "push"), ("x-event", "other"), ("x-odd", "\u{ff}"), ("x-odd", "plain"), ("x-no", "\u{ff}")];
        let mut sent = HeaderMap::new();
        for (name, value) in pairs {
            // One byte above 127, which is allowed on the wire and no text.
            let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(c).expect("latin")).collect();
            sent.append(http::HeaderName::from_static(name), http::HeaderValue::from_bytes(&bytes).expect("a value"));
        }
        let texts = sent.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let copied = Context::new().with_headers("headers", texts);
        let shared = Context::new().with_sent_headers("headers", Arc::new(sent.clone()));
        for source in [
            "headers['X-Event']",
            "headers['x-odd']",
            "headers['x-no'] | default('none')",
            "headers['no'] is defined",
            "headers | length",
            "headers | list | join(' ')",
            "headers | tojson",
        ] {
            let text = |context: &Context| Expr::compile(source).and_then(|expr| expr.text(context));
            assert_eq!(text(&copied), text(&shared), "{source}");
        }
        assert_eq!(Expr::compile("headers | length").and_then(|expr| expr.text(&shared)), Ok(Some("2".to_owned())));
    }

    #[test]
    fn a_lazy_value_is_made_once_and_only_when_read() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let context = Context::new().with("a", 1).with_lazy("b", move || {
            count.fetch_add(1, Ordering::SeqCst);
            Value::from(2)
        });
        let sum = |source: &str| Expr::compile(source).and_then(|expr| expr.text(&context));
        assert_eq!(sum("a + 1"), Ok(Some("2".to_owned())));
        assert_eq!(made.load(Ordering::SeqCst), 0);
        assert_eq!(sum("b + b"), Ok(Some("4".to_owned())));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
