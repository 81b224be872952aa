//! What calls carried: headers and the beginning of bodies, without secrets, as far as the settings want it.
//!
//! Made where a call ends, by whoever knows what in it is secret; in memory for as long as [`Contents`] has room, and
//! in the files beside its entry. Read by `admin`.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Weak};

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::filter::contains;
use crate::base::id::ActivityId;
use crate::base::redact::REDACTED;
use crate::base::scrub::scrubbed;
use crate::base::sensitive::is_sensitive;

/// The most headers of a message that are kept.
const HEADERS: usize = 64;
/// The most bytes of one header's value that are kept.
const VALUE: usize = 512;
/// The most bytes of all values of a message that are looked through.
const VALUES: usize = 8 << 10;

/// What a call carried. Holds no secret that is known, and nothing under a name of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What was sent.
    pub request: Message,
    /// What was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Message>,
}

/// One way of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Names and values, in order.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The beginning of the body; none where there is none, or where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<str>>,
    /// Whether the body is longer than that.
    #[serde(default)]
    pub cut: bool,
}

impl Content {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let of = |message: &Message| {
            let headers = message.headers.iter().map(|(name, value)| name.len() + value.len() + 32);
            headers.sum::<usize>() + message.body.as_ref().map_or(0, |body| body.len()) + 64
        };
        of(&self.request) + self.response.as_ref().map_or(0, of) + 64
    }

    /// Whether it has this text, whatever case its ASCII letters have.
    pub fn has(&self, text: &str) -> bool {
        let has = |message: &Message| {
            message.body.as_deref().is_some_and(|body| contains(body, text))
                || message.headers.iter().any(|(name, value)| contains(name, text) || contains(value, text))
        };
        has(&self.request) || self.response.as_ref().is_some_and(has)
    }
}

/// The beginning of a body, gathered as it passes.
#[derive(Debug, Default)]
pub struct Beginning {
    bytes: Vec<u8>,
    most: usize,
    is_cut: bool,
}

impl Beginning {
    /// Of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, is_cut: false }
    }

    /// Of a body that is there whole.
    pub fn of(body: &[u8], most: usize) -> Self {
        let mut beginning = Self::new(most);
        beginning.add(body);
        beginning
    }

    /// Another piece passes.
    pub fn add(&mut self, piece: &[u8]) {
        let room = self.most - self.bytes.len();
        self.bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        self.is_cut |= piece.len() > room;
    }

    /// The body begins anew.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.is_cut = false;
    }
}

impl Message {
    /// A message without secrets: `plain` takes out those that are known.
    pub fn of(headers: &HeaderMap, body: &Beginning, plain: &dyn Fn(&str) -> String) -> Self {
        let (body, cut) = match text_of(headers, body) {
            Some((text, cut)) => (Some(scrubbed(&plain(&text)).into_owned()), cut),
            None => (None, false),
        };
        Self { headers: shown(headers, plain), body: body.map(String::into_boxed_str), cut }
    }
}

fn shown(headers: &HeaderMap, plain: &dyn Fn(&str) -> String) -> Vec<(Box<str>, Box<str>)> {
    let value = |name: &HeaderName, value: &http::HeaderValue| -> Box<str> {
        if value.is_sensitive() || is_sensitive(name.as_str()) {
            return REDACTED.into();
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        // More than is shown is looked through, so that a secret across its end is found, and not more than that.
        let text = text.get(..text.floor_char_boundary(2 * VALUE)).unwrap_or_default();
        let clean = plain(text);
        // An address in one may have a query.
        let mut clean = scrubbed(&clean).into_owned();
        clean.truncate(clean.floor_char_boundary(VALUE));
        clean.into()
    };
    let mut looked = 0;
    let few = headers.iter().take(HEADERS).take_while(|(_, of)| {
        looked += of.len().min(2 * VALUE);
        looked <= VALUES
    });
    few.map(|(name, of)| (name.as_str().into(), value(name, of))).collect()
}

/// The beginning of a body as text, without compression, and whether there is more.
fn text_of(headers: &HeaderMap, body: &Beginning) -> Option<(String, bool)> {
    if body.bytes.is_empty() || is_not_text(headers) {
        return None;
    }
    let unpacked = unpacked(headers, body)?;
    let (bytes, is_cut) = match &unpacked {
        Some((bytes, is_cut)) => (bytes.as_slice(), *is_cut),
        None => (body.bytes.as_slice(), body.is_cut),
    };
    let whole = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // A character that the cut went through.
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let is_text = |char: char| !char.is_control() || matches!(char, '\n' | '\r' | '\t' | '\u{1e}');
    whole.chars().all(is_text).then(|| (whole.to_owned(), is_cut))
}

/// What a body says when it is unpacked: `None` when it cannot be, `Some(None)` when it need not be.
#[expect(clippy::option_option, reason = "the two are different answers")]
fn unpacked(headers: &HeaderMap, body: &Beginning) -> Option<Option<(Vec<u8>, bool)>> {
    let coding = match headers.get(header::CONTENT_ENCODING) {
        None => return Some(None),
        Some(coding) => coding.as_bytes().to_ascii_lowercase(),
    };
    let mut reader: Box<dyn std::io::Read + '_> = match coding.as_slice() {
        b"identity" => return Some(None),
        b"gzip" | b"x-gzip" => Box::new(MultiGzDecoder::new(body.bytes.as_slice())),
        b"deflate" => Box::new(ZlibDecoder::new(body.bytes.as_slice())),
        _ => return None,
    };
    let (mut bytes, mut piece) = (Vec::new(), [0; 512]);
    // What was cut cannot be read to its end; what came before that can.
    while bytes.len() < body.most {
        match reader.read(&mut piece) {
            Ok(0) => return Some(Some((bytes, body.is_cut))),
            Ok(count) => bytes.extend_from_slice(piece.get(..count)?),
            Err(_) if body.is_cut && !bytes.is_empty() => return Some(Some((bytes, true))),
            Err(_) => return None,
        }
    }
    bytes.truncate(body.most);
    Some(Some((bytes, true)))
}

fn media_of(headers: &HeaderMap) -> String {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether its kind says that it is no text, or one of parts in which nobody looks for secrets.
fn is_not_text(headers: &HeaderMap) -> bool {
    let media = media_of(headers);
    ["multipart/", "image/", "audio/", "video/", "font/"].iter().any(|kind| media.starts_with(kind))
}

/// What is kept of a call beside its entry, as long as there is room for it.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    here: Weak<Content>,
    /// Where it was just read from a file, and nobody has it yet.
    read: Option<Arc<Content>>,
}

impl Kept {
    /// It, where it is still there.
    pub fn get(&self) -> Option<Arc<Content>> {
        self.read.clone().or_else(|| self.here.upgrade())
    }

    /// Leaves what was read from a file to whoever keeps it.
    pub(super) fn take(&mut self) -> Option<Arc<Content>> {
        let read = self.read.take()?;
        self.here = Arc::downgrade(&read);
        Some(read)
    }

    /// For files: nothing where there is nothing.
    pub(super) fn is_left_out(kept: &Self) -> bool {
        kept.get().is_none()
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Kept {}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().as_deref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Option::<Content>::deserialize(deserializer)?.map(Arc::new);
        Ok(Self { here: Weak::new(), read })
    }
}

/// The newest contents, within a bound of memory.
#[derive(Debug, Default)]
pub struct Contents {
    kept: VecDeque<(ActivityId, Arc<Content>)>,
    bytes: usize,
}

impl Contents {
    /// Keeps one, the newest of all, and tells how its entry finds it.
    pub fn push(&mut self, id: ActivityId, content: Arc<Content>) -> Kept {
        let kept = Kept { here: Arc::downgrade(&content), read: None };
        self.bytes += content.bytes();
        self.kept.push_back((id, content));
        kept
    }

    /// Lets go of the oldest that have no room in `most` bytes, and of those that are not after `gone`. What is freed is
    /// returned, to be freed outside a lock.
    pub fn keep(&mut self, most: usize, gone: ActivityId) -> Vec<Arc<Content>> {
        let mut freed = Vec::new();
        while let Some((_, content)) = self.kept.pop_front_if(|(id, _)| self.bytes > most || *id <= gone) {
            self.bytes -= content.bytes();
            freed.push(content);
        }
        freed
    }

    /// What they take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::redact::redact;
    use crate::base::secret::Secret;
    use std::io::Write as _;

    fn plain(text: &str) -> String {
        redact(text, &[Secret::from("sk_live_1234567890")])
    }

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn secrets_are_in_neither_headers_nor_bodies() {
        let given = headers(&[
            ("content-type", "application/json"),
            ("authorization", "Bearer abc"),
            ("x-echo", "it was sk_live_1234567890"),
            ("x-plain", "seen"),
        ]);
        let body = br#"{"note":"sk_live_1234567890","password":"hunter2","ok":true}"#;
        let message = Message::of(&given, &Beginning::of(body, 4_096), &plain);
        let body = r#"{"note":"[redacted]","password":"[redacted]","ok":true}"#;
        assert_eq!((message.body.as_deref(), message.cut), (Some(body), false));
        let value = |name: &str| message.headers.iter().find(|(is, _)| &**is == name).map(|(_, value)| &**value);
        assert_eq!(value("authorization"), Some("[redacted]"));
        assert_eq!(value("x-echo"), Some("it was [redacted]"));
        assert_eq!(value("x-plain"), Some("seen"));
    }

    #[test]
    fn a_body_is_cut_between_characters_and_no_half_of_a_secret_is_left() {
        let cut = |body: &str, most| {
            let message = Message::of(&headers(&[]), &Beginning::of(body.as_bytes(), most), &plain);
            (message.body.map(String::from), message.cut)
        };
        assert_eq!(cut("abcé", 4), (Some("abc".to_owned()), true));
        assert_eq!(cut("abcé", 5), (Some("abcé".to_owned()), false));
        assert_eq!(cut("it is sk_live_1234567890", 18), (Some("it is [redacted]".to_owned()), true));
        assert_eq!(cut("a\0b", 18), (None, false));
    }

    #[test]
    fn what_is_compressed_is_read_also_where_it_is_cut() {
        let text = (0..2_000).map(|number| format!("{{\"line\":{number}}}")).collect::<Vec<_>>().join("\n");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(text.as_bytes()).expect("memory");
        let packed = packed.finish().expect("memory");
        let given = headers(&[("content-encoding", "gzip")]);
        let whole = Message::of(&given, &Beginning::of(&packed, 64 << 10), &plain);
        assert_eq!((whole.body.as_deref(), whole.cut), (Some(&*text), false));
        let cut = Message::of(&given, &Beginning::of(&packed, 2_048), &plain);
        let body = cut.body.expect("its beginning");
        assert!(cut.cut && body.len() <= 2_048 && text.starts_with(&*body) && body.len() > 1_000, "{}", body.len());
        let unknown = headers(&[("content-encoding", "br")]);
        assert_eq!(Message::of(&unknown, &Beginning::of(&packed, 2_048), &plain).body, None);
    }

    #[test]
    fn the_oldest_go_first_when_there_is_no_room() {
        let content = |text: &str| {
            let request = Message { body: Some(text.into()), ..Message::default() };
            Arc::new(Content { request, response: None })
        };
        let mut contents = Contents::default();
        let first = contents.push(ActivityId::from_u64(1), content("first"));
        let second = contents.push(ActivityId::from_u64(2), content("second"));
        let most = contents.bytes();
        let third = contents.push(ActivityId::from_u64(3), content("third"));
        drop(contents.keep(most, ActivityId::default()));
        assert!(first.get().is_none() && second.get().is_some_and(|content| content.has("SECOND")));
        drop(contents.keep(most, ActivityId::from_u64(2)));
        assert!(second.get().is_none() && third.get().is_some());
        drop(contents.keep(0, ActivityId::default()));
        assert_eq!(contents.bytes(), 0);
    }
}
