//! Elements of XML and HTML. Called by [`super::scrubbed`].

use super::layer::Layer;
use super::{Found, LABELS, LONGEST_LABEL, VALUES};
use crate::base::sensitive::is_sensitive;

/// What elements of such names have in them, to their own ends, and those beside a name that tells them to be secret:
/// `<name>password</name><value>…</value>`.
pub struct Elements<'a> {
    layer: &'a Layer<'a>,
    found: Vec<Found>,
    /// Whether the label before tells what follows to be secret, where there is one.
    label: Option<bool>,
    /// Where the content of the value begins that is open.
    open: Option<usize>,
    /// The value that a label behind it may be about.
    value: Option<Found>,
    /// The next `>` that was found.
    close: usize,
}

impl<'a> Elements<'a> {
    /// What is to be taken out of a text, of that which stands in elements.
    pub fn of(layer: &'a Layer<'a>) -> Vec<Found> {
        let mut elements = Self { layer, found: Vec::new(), label: None, open: None, value: None, close: 0 };
        let mut at = 0;
        while let Some(open) = memchr::memchr(b'<', layer.reading.bytes.get(at..).unwrap_or_default()) {
            let Some(next) = elements.tag(at + open) else { break };
            at = next;
        }
        elements.found
    }

    /// A tag, or what looks like one. Says where to go on, where there may be more.
    fn tag(&mut self, at: usize) -> Option<usize> {
        let bytes = self.layer.reading.bytes.as_slice();
        let is_end = bytes.get(at + 1) == Some(&b'/');
        let begin = at + 1 + usize::from(is_end);
        let rest = bytes.get(begin..)?;
        let is_of_it = |byte: &&u8| !byte.is_ascii_whitespace() && !matches!(**byte, b'/' | b'>' | b'<');
        let name = rest.get(..rest.iter().take_while(is_of_it).count())?;
        let local = String::from_utf8_lossy(name.rsplit(|byte| *byte == b':').next()?).into_owned();
        let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(&local));
        let (is_label, is_value) = (is(&LABELS), is(&VALUES) || is(&["string"]));
        if is_end {
            self.end(at, is_label, is_value);
            return Some(begin);
        }
        if !is_label && !is_value && !is_sensitive(&local) {
            return Some(begin);
        }
        if self.close < begin {
            self.close = begin + memchr::memchr(b'>', rest)?;
        }
        let content = self.close + 1;
        if bytes.get(self.close - 1) == Some(&b'/') {
            return Some(begin);
        }
        if is_label {
            let text = bytes.get(content..)?;
            let end = content + memchr::memchr(b'<', text).unwrap_or(text.len());
            let is_secret = end - content <= LONGEST_LABEL && is_sensitive(&self.layer.said(content..end));
            let before = self.value.take();
            self.found.extend(before.filter(|_| is_secret));
            self.label = Some(is_secret);
            return Some(end);
        }
        if is_value && self.label != Some(true) {
            self.open = Some(content).filter(|_| self.label.is_none());
            return Some(begin);
        }
        let wall = self.layer.wall(content);
        let ending = [b"</", name].concat();
        let inside = bytes.get(content..wall)?;
        let end = memchr::memmem::find(inside, &ending).map_or(wall, |end| content + end);
        self.found.extend((content < end).then(|| self.layer.found(content..end, None)));
        Some(end)
    }

    /// The end of an element: of a value, or of what labels and values stand in together.
    fn end(&mut self, at: usize, is_label: bool, is_value: bool) {
        if is_value {
            let content = self.open.take().filter(|open| *open < at && self.layer.wall(*open) >= at);
            self.value = content.map(|open| self.layer.found(open..at, None)).or_else(|| self.value.take());
        } else if !is_label && self.open.is_none() {
            (self.label, self.value) = (None, None);
        }
    }
}
