//! Elements of XML and HTML. Called by [`super::scrubbed`].

use super::layer::Layer;
use super::{Found, LABELS, LONGEST_LABEL, VALUES};
use crate::base::sensitive::is_sensitive;

/// Elements whose text is for people, whatever they are called.
const SHOWN: [&str; 4] = ["a", "button", "label", "option"];

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
    /// How many bytes may still be looked through for ends of elements.
    left: usize,
}

impl<'a> Elements<'a> {
    /// What is to be taken out of a text, of that which stands in elements.
    pub fn of(layer: &'a Layer<'a>) -> Vec<Found> {
        let left = layer.len().saturating_mul(ROUNDS);
        let mut elements = Self { layer, found: Vec::new(), label: None, open: None, value: None, close: 0, left };
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
        if !is_sensitive(&local)
            && let Some(end) = self.labelled(at, name)
        {
            return Some(end);
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
        let end = self.end_of(name, content);
        self.found.extend((content < end).then(|| self.layer.found(content..end, None)));
        Some(end)
    }

    /// Where the content of an element ends: its own end, behind those of elements of its name in it. Of very many elements
    /// without an end all that follows is taken for the content.
    fn end_of(&mut self, name: &[u8], content: usize) -> usize {
        let wall = self.layer.wall(content);
        if self.left == 0 {
            return wall;
        }
        let inside = self.layer.reading.bytes.get(content..wall).unwrap_or_default();
        let (mut at, mut depth, mut last, mut has_more) = (0, 1_usize, None, true);
        while let Some(open) = memchr::memchr(b'<', inside.get(at..).unwrap_or_default()) {
            at += open;
            let rest = inside.get(at..).unwrap_or_default();
            let passed = [(b"<!--".as_slice(), "-->"), (b"<![CDATA[", "]]>")]
                .into_iter()
                .find(|(begin, _)| rest.starts_with(begin));
            if let Some((_, end)) = passed.filter(|_| has_more) {
                let end = memchr::memmem::find(rest, end.as_bytes());
                has_more = end.is_some();
                at += end.unwrap_or(1);
                continue;
            }
            if is_named(rest, b"</", name) {
                (depth, last) = (depth - 1, Some(content + at));
                if depth == 0 {
                    break;
                }
            }
            let close =
                || rest.get(1..).and_then(|rest| memchr::memchr2(b'<', b'>', rest)).and_then(|end| rest.get(end));
            if is_named(rest, b"<", name) && close() != Some(&b'/') {
                depth += 1;
            }
            at += 1;
        }
        self.left = self.left.saturating_sub(if depth == 0 { at } else { inside.len() });
        last.unwrap_or(wall)
    }

    /// An element that an attribute says to be secret, with nothing but a text in it: `<textarea name="password">`. Says
    /// where the text ends.
    fn labelled(&mut self, at: usize, name: &[u8]) -> Option<usize> {
        if SHOWN.iter().any(|shown| shown.as_bytes().eq_ignore_ascii_case(name)) {
            return None;
        }
        let bytes = self.layer.reading.bytes.as_slice();
        let begin = at + 1 + name.len();
        let rest = bytes.get(begin..)?;
        let close = begin + memchr::memchr2(b'<', b'>', rest)?;
        let attributes = bytes.get(begin..close)?;
        if bytes.get(close) != Some(&b'>') || !is_labelling(attributes) {
            return None;
        }
        let text = bytes.get(close + 1..)?;
        let end = close + 1 + memchr::memchr(b'<', text)?;
        let is_alone = is_named(bytes.get(end..)?, b"</", name) && self.layer.wall(at) >= end;
        let is_said = !bytes.get(close + 1..end)?.trim_ascii().is_empty();
        self.found.extend((is_alone && is_said).then(|| self.layer.found(close + 1..end, None)));
        is_alone.then_some(end)
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

/// How often the length of a text is looked through for ends of elements.
const ROUNDS: usize = 8;

/// Whether a text begins with a tag of this name.
fn is_named(text: &[u8], sign: &[u8], name: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(sign) else { return false };
    let is_it = rest.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    is_it && rest.get(name.len()).is_none_or(|next| next.is_ascii_whitespace() || matches!(next, b'>' | b'/'))
}

/// Whether one of the attributes names what is secret.
fn is_labelling(attributes: &[u8]) -> bool {
    let mut words = attributes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.any(|word| {
        let (name, value) = word.split_at(word.iter().position(|byte| *byte == b'=').unwrap_or(word.len()));
        let is_label = LABELS.iter().any(|label| label.as_bytes().eq_ignore_ascii_case(name));
        is_label && value.len() <= LONGEST_LABEL && is_sensitive(&String::from_utf8_lossy(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::escape;

    #[test]
    fn very_many_elements_without_an_end_are_looked_through_a_few_times() {
        let part = |number: usize| format!("<pw{number}><pw{number}></pw{number}>");
        let text = (0..2_000).map(part).collect::<Vec<_>>().concat();
        escape::readings(&text, false, |reading| {
            let layer = Layer { text: &text, reading, walls: &[] };
            let mut elements = Elements::of(&layer);
            elements.truncate(10);
            assert!(!elements.is_empty());
            let mut one =
                Elements { layer: &layer, found: Vec::new(), label: None, open: None, value: None, close: 0, left: 1 };
            assert!(one.end_of(b"pw0", 5) < text.len() && one.left == 0);
            assert_eq!(one.end_of(b"pw1", 25), text.len());
        });
    }
}
