//! Names and values in pairs, in whatever form. Called by [`super::scrubbed`].

use std::ops::Range;

use super::ends::{Context, Ends};
use super::layer::{Layer, Name, is_of_name};
use super::{Found, LABELS, LONGEST_LABEL, VALUES};
use crate::base::sensitive::{is_count, is_sensitive};

/// How often the length of a text may have been looked through when a list or a map is kept in mind that only a label
/// behind it may tell to be secret.
const ROUNDS: usize = 4;

/// What is known of the pairs of one map.
#[derive(Default)]
struct Beside {
    /// Whether one said that a value beside it is secret.
    is_labelled: bool,
    /// The value that a label behind it may be about.
    value: Option<Found>,
}

/// Names and values, in whatever form: `"name": "value"`, `name=value`, `name: value`.
pub struct Pairs<'a> {
    layer: &'a Layer<'a>,
    found: Vec<Found>,
    /// Of each map that is open.
    maps: Vec<Beside>,
    /// Where the last string ends that is in each of the two signs.
    strings: [Option<usize>; 2],
    /// Whether this is within a tag.
    is_in_tag: bool,
    ends: Ends<'a>,
}

impl<'a> Pairs<'a> {
    /// What is to be taken out of a text, of that which stands in pairs.
    pub fn of(layer: &'a Layer<'a>) -> Vec<Found> {
        Self::read(layer).found
    }

    fn read(layer: &'a Layer<'a>) -> Self {
        let maps = vec![Beside::default()];
        let mut pairs =
            Self { layer, found: Vec::new(), maps, strings: [None; 2], is_in_tag: false, ends: Ends::of(layer) };
        let mut at = 0;
        while let Some(byte) = layer.byte(at) {
            at = pairs.step(at, byte);
        }
        pairs
    }

    fn beside(&mut self) -> &mut Beside {
        if self.maps.is_empty() {
            self.maps.push(Beside::default());
        }
        let last = self.maps.len() - 1;
        &mut self.maps[last]
    }

    /// Looks at what begins at `at`, and says where the rest does.
    fn step(&mut self, at: usize, byte: u8) -> usize {
        match byte {
            b'{' => self.maps.push(Beside::default()),
            b'}' => _ = self.maps.pop(),
            b'<' => {
                let next = self.layer.byte(at + 1);
                self.is_in_tag |=
                    next.is_some_and(|next| next.is_ascii_alphabetic() || matches!(next, b'/' | b'!' | b'?'));
            }
            b'>' => {
                self.is_in_tag = false;
                *self.beside() = Beside::default();
            }
            b'"' | b'\'' => return self.string(at, byte),
            byte if is_of_name(byte) => return self.bare(at),
            _ => {}
        }
        at + 1
    }

    /// A quote: it may begin a name, which has anything in it, or a text that has pairs in it.
    fn string(&mut self, at: usize, sign: u8) -> usize {
        let layer = self.layer;
        let is_within = at.checked_sub(1).and_then(|before| layer.byte(before)).is_some_and(is_of_name);
        let last = &mut self.strings[usize::from(sign == b'"')];
        if *last == Some(at) || is_within || !layer.is_quote(at) {
            return at + 1;
        }
        let Ok(end) = self.ends.of_string(at) else { return at + 1 };
        if let Some((sign, value)) = layer.value_behind(end + 1) {
            *last = Some(end);
            let inside = self.within_name(at + 1..end);
            return self.pair(&Name { range: at + 1..end, quote: Some(end), sign }, value).max(inside);
        }
        *last = Some(end);
        at + 1
    }

    /// Looks for pairs in a name, which may be an address with a query.
    fn within_name(&mut self, range: Range<usize>) -> usize {
        let mut at = range.start;
        while at < range.end {
            let name = at..self.layer.name_end(at);
            at = match self.layer.value_behind(name.end) {
                Some((sign, value)) if value < range.end => self.pair(&Name { range: name, quote: None, sign }, value),
                _ => name.end.max(at + 1),
            };
        }
        at
    }

    fn bare(&mut self, at: usize) -> usize {
        let end = self.layer.name_end(at);
        let quote = Some(end).filter(|end| self.layer.is_quote(*end));
        match self.layer.value_behind(end + usize::from(quote.is_some())) {
            Some((sign, value)) => self.pair(&Name { range: at..end, quote, sign }, value),
            None => end,
        }
    }

    /// A pair, whose value begins at `value`: taken out where its name says so. Says where to go on: within the value
    /// where it stays, which may have others in it, a list, a map, an address with a query, or JSON as text.
    fn pair(&mut self, name: &Name, value: usize) -> usize {
        let layer = self.layer;
        let said = layer.said(name.range.clone());
        // Of a form's name it is the part in the last brackets.
        let last = said.trim_end_matches(['[', ']']).rsplit('[').next().unwrap_or_default();
        let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(last));
        let is_container = matches!(layer.byte(value), Some(b'[' | b'{'));
        let (is_label, is_value) = (is(&LABELS) && !is_container, is(&VALUES));
        let is_taken = is_sensitive(&said) || is_value && self.beside().is_labelled;
        let has_room = self.ends.looked < layer.len().saturating_mul(ROUNDS);
        let is_kept_in_mind = is_value && (!is_container || has_room);
        if !is_taken && !is_label && !is_kept_in_mind {
            return value;
        }
        let limit = self.strings.iter().flatten().copied().filter(|end| *end > name.range.end).min();
        let context = Context { limit, is_in_tag: self.is_in_tag, is_taken };
        let (inner, whole) = self.ends.of_value(value, name, &context);
        let is_said =
            !matches!(layer.reading.bytes.get(inner.clone()), None | Some(b"" | b"null" | b"true" | b"false"));
        let quote = name.quote.filter(|_| inner == whole);
        if is_taken {
            let is_kept = !is_said || inner == whole && layer.is_number(inner.clone()) && is_count(&said);
            self.found.extend((!is_kept).then(|| layer.found(inner, quote)));
            return whole.end.max(value);
        }
        if is_value {
            self.beside().value = is_said.then(|| layer.found(inner, quote));
        } else if inner.len() <= LONGEST_LABEL {
            self.ends.looked += inner.len();
            if is_sensitive(&layer.said(inner)) {
                self.beside().is_labelled = true;
                let before = self.beside().value.take();
                self.found.extend(before);
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::escape;

    #[test]
    fn the_work_is_as_long_as_the_text() {
        let many = |part: &str| part.repeat(8_192 / part.len());
        let spelt = |width: usize| format!("value=\\u{{{:0>width$}}}", 22);
        for text in [
            many("name="),
            many("name:"),
            many(&format!("{}&", "name=".repeat(24))),
            many("key:"),
            many("value="),
            many("value:name="),
            many("name%3D"),
            many("value='\\"),
            many("name=\""),
            many("\"name\":\""),
            many("\"value\":["),
            many("{\"value\":{"),
            many("value=[{"),
            many("password="),
            many("password:["),
            many("token=value:"),
            many("a[b]["),
            many("a=\"'"),
            many("name=&quot;'"),
            format!("[\"{}\"]", many("name=\\\\\\\"")),
            format!("[\"{}", many("value='\\\"")),
            many(&(2..6).map(spelt).collect::<Vec<_>>().concat()),
        ] {
            escape::readings(&text, false, |reading| {
                let layer = Layer { text: &text, reading, walls: &[0, text.len() - 1] };
                let looked = Pairs::read(&layer).ends.looked;
                assert!(looked <= 32 * text.len(), "{looked} of {}: {:?}", text.len(), text.get(..32));
            });
        }
    }
}
