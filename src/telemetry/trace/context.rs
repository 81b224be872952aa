//! W3C Trace Context: what `traceparent` and `tracestate` say (<https://www.w3.org/TR/trace-context-1/>).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that names trace and parent.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with what tracing systems add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Where a stored event has the context it came with: no HTTP request can carry a header of this name.
pub const STORED: &str = ":traceparent";

/// The length of a `traceparent` of version 00, and of what later versions begin with.
const LENGTH: usize = 55;
/// The most bytes of `tracestate` that are passed on: what the specification asks for.
const LONGEST_STATE: usize = 512;

/// Names a trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Names a span of a trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a trace, as it is told from one process to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that what comes next is below.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
    /// What tracing systems added, as it came.
    pub state: Option<HeaderValue>,
}

impl TraceContext {
    /// The context that a request came with; `None` where it has none, or one that is malformed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let context = Self::parse(value.as_bytes())?;
        Some(Self { state: state(headers), ..context })
    }

    /// Reads a `traceparent`. One of a later version is read as far as version 00 goes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let [version] = hex(known.get(..2)?)?;
        let is_later = version != 0 && rest.first().is_none_or(|byte| *byte == b'-');
        let dashes = [2, 35, 52].iter().all(|place| known.get(*place) == Some(&b'-'));
        if version == 0xff || !dashes || !(is_later || version == 0 && rest.is_empty()) {
            return None;
        }
        let (trace, span, [flags]) = (hex(known.get(3..35)?)?, hex(known.get(36..52)?)?, hex(known.get(53..)?)?);
        let is_named = trace != [0; 16] && span != [0; 8];
        let sampled = flags & 1 == 1;
        is_named.then_some(Self { trace: TraceId(trace), span: SpanId(span), sampled, state: None })
    }

    /// It as a `traceparent`.
    pub fn header(&self) -> HeaderValue {
        let text = format!("00-{}-{}-0{}", self.trace, self.span, u8::from(self.sampled));
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }

    /// Puts it into a request's headers, in place of what they say.
    pub fn put_in(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.header());
        headers.remove(TRACESTATE);
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }
}

/// What tracing systems added; dropped where it is longer than anyone must pass on.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let mut joined = first.as_bytes().to_vec();
    for value in values {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    let is_plain = joined.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let fits = (1..=LONGEST_STATE).contains(&joined.len()) && is_plain;
    fits.then(|| HeaderValue::from_bytes(&joined).ok())?
}

/// Bytes from lower-case hexadecimal digits, all of them.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<String> {
        let context = TraceContext::parse(text.as_bytes())?;
        Some(context.header().to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn well_formed_ones_are_read() {
        assert_eq!(read(GOOD).as_deref(), Some(GOOD));
        let unsampled = GOOD.replace("-01", "-00");
        assert_eq!(read(&unsampled).as_deref(), Some(&*unsampled));
        let later = format!("cc{}-what-the-future-brings", GOOD.split_at(2).1);
        assert_eq!(read(&later).as_deref(), Some(GOOD), "as far as version 00 goes");
        assert_eq!(
            read(&GOOD.replace("-01", "-ff")).as_deref(),
            Some(GOOD),
            "flags that nobody knows are not passed on"
        );
    }

    #[test]
    fn malformed_ones_are_not() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn states_are_joined_and_bounded() {
        let headers = |parents: &[&str], states: &[&str]| {
            let mut headers = HeaderMap::new();
            for (name, values) in [(TRACEPARENT, parents), (TRACESTATE, states)] {
                for value in values {
                    headers.append(&name, value.parse().expect("a header"));
                }
            }
            TraceContext::of(&headers)
        };
        let state = |states: &[&str]| headers(&[GOOD], states).expect("a context").state;
        assert_eq!(state(&["a=1", "b=2"]).expect("a state"), "a=1,b=2");
        assert_eq!((state(&[]), state(&[&"x".repeat(513)]), state(&[""])), (None, None, None));
        assert_eq!(headers(&[GOOD, GOOD], &[]), None, "two parents are none");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not_and_what_is_read_is_written_the_same(text in ".{0,80}") {
            drop(read(&text));
        }

        #[test]
        fn contexts_survive_text(trace in any::<u128>(), span in any::<u64>(), sampled in any::<bool>()) {
            prop_assume!(trace != 0 && span != 0);
            let (trace, span) = (TraceId(trace.to_be_bytes()), SpanId(span.to_be_bytes()));
            let context = TraceContext { trace, span, sampled, state: None };
            prop_assert_eq!(TraceContext::parse(context.header().as_bytes()), Some(context));
        }
    }
}
