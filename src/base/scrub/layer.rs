//! A text with some layers of its escapes read: where names begin and end in it, and what its quotes are. Called by
//! [`super::pairs`], [`super::ends`] and [`super::elements`].

use std::ops::Range;

use super::Found;
use crate::base::escape::{self, Reading};

/// A text with some layers of its escapes read. A quote counts in the layer that it appears in: in those before it is part
/// of an escape, and in those behind, what was escaped within it looks the same.
pub struct Layer<'a> {
    pub text: &'a str,
    pub reading: &'a Reading,
    /// Where the strings of the text begin and end, where it is JSON.
    pub walls: &'a [usize],
}

/// A name that a value stands under: where it is, the quote behind it, and the sign between the two.
pub struct Name {
    pub range: Range<usize>,
    pub quote: Option<usize>,
    pub sign: usize,
}

impl Layer<'_> {
    pub fn byte(&self, at: usize) -> Option<u8> {
        self.reading.bytes.get(at).copied()
    }

    pub fn len(&self) -> usize {
        self.reading.bytes.len()
    }

    /// How a character is written.
    pub fn written(&self, at: usize) -> &[u8] {
        self.text.as_bytes().get(self.reading.range(at, at + 1)).unwrap_or_default()
    }

    /// Whether a character is written as an escape that begins with this sign.
    pub fn is_in(&self, sign: u8, at: usize) -> bool {
        matches!(self.written(at), [first, _, ..] if *first == sign)
    }

    /// What a stretch says when all its escapes are read.
    pub fn said(&self, range: Range<usize>) -> String {
        let text = String::from_utf8_lossy(self.reading.bytes.get(range).unwrap_or_default());
        if memchr::memchr3(b'\\', b'%', b'&', text.as_bytes()).is_none() {
            return text.into_owned();
        }
        String::from_utf8_lossy(&escape::innermost(&text)).into_owned()
    }

    pub fn is_number(&self, range: Range<usize>) -> bool {
        let text = self.reading.bytes.get(range).unwrap_or_default();
        text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    }

    /// Whether a character is written as a reference of HTML or XML, whatever escapes that is written in.
    fn is_reference(&self, at: usize) -> bool {
        matches!(self.written(at), [.., b';'] | [.., b'3', b'b' | b'B'])
    }

    /// Whether a quote is one of its text in this layer.
    pub fn is_quote(&self, at: usize) -> bool {
        let before = self.reading.bytes.get(..at).unwrap_or_default();
        let escapes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        // The escapes before a reference are not of the layer that the reference is of: some may be read already.
        let counts =
            if self.is_reference(at) { escapes == 0 } else { self.reading.is_new(at) && escapes.is_multiple_of(2) };
        counts && matches!(self.byte(at), Some(b'"' | b'\''))
    }

    /// Whether a string of the JSON that the text is begins or ends here: nothing in one reaches beyond it.
    pub fn is_wall(&self, at: usize) -> bool {
        let is_last = |end: usize| self.walls.binary_search(&end.saturating_sub(1)).is_ok();
        self.byte(at) == Some(b'"') && is_last(self.reading.range(at, at + 1).end)
    }

    /// The next such place, or the end.
    pub fn wall(&self, from: usize) -> usize {
        let begin = self.reading.range(from, from).start;
        let next = self.walls.partition_point(|wall| *wall < begin);
        self.walls.get(next).map_or(self.len(), |wall| self.reading.at(*wall))
    }

    /// Whether a value of this name may have strings of the JSON in it that the text is.
    pub fn is_walled(&self, name: &Name) -> bool {
        !name.quote.is_some_and(|quote| self.is_wall(quote))
    }

    /// Where the sign behind a name that ends at `at` stands, where there is one, and where its value begins.
    pub fn value_behind(&self, at: usize) -> Option<(usize, usize)> {
        let sign = self.blanks_end(at);
        if !matches!(self.byte(sign), Some(b':' | b'=')) {
            return None;
        }
        let arrow = usize::from(self.byte(sign + 1) == Some(b'>'));
        Some((sign, self.blanks_end(sign + 1 + arrow)))
    }

    fn blanks_end(&self, at: usize) -> usize {
        let rest = self.reading.bytes.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
    }

    /// Where a name ends that begins at `at` and is in no quotes, with the brackets that forms have in names.
    pub fn name_end(&self, at: usize) -> usize {
        let run = |at: usize| {
            let rest = self.reading.bytes.get(at..).unwrap_or_default();
            at + rest.iter().take_while(|byte| is_of_name(**byte)).count()
        };
        let mut end = run(at);
        while self.byte(end) == Some(b'[') {
            let close = run(end + 1);
            if self.byte(close) != Some(b']') {
                break;
            }
            end = close + 1;
        }
        let is_last = self.byte(end) == Some(b']') && self.byte(end + 1) == Some(b'=');
        end + usize::from(is_last)
    }

    pub fn found(&self, range: Range<usize>, quote: Option<usize>) -> Found {
        let place = |range: Range<usize>| self.reading.range(range.start, range.end);
        Found { range: place(range), quote: quote.map(|quote| place(quote..quote + 1)) }
    }
}

/// Whether a name that is in no quotes may have this in it.
pub fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'%' | b'$') || byte >= 0x80
}
