//! Where values and strings end in a layer of a text. Called by [`super::pairs`].

use std::collections::HashMap;
use std::ops::Range;

use super::layer::{Layer, Name};

/// Where values and strings end. Each stretch is looked through once for each kind of end, however many values begin in
/// it, so that the work is as long as the text.
pub struct Ends<'a> {
    layer: &'a Layer<'a>,
    /// The quotes, and where what each begins ends: with the same sign, written alike; without one where the text ends, or
    /// the string of JSON.
    strings: Vec<(usize, Result<usize, usize>)>,
    /// Where a value was looked for last by each kind of end: from there to where it ends, all end alike.
    scalars: Vec<(Kind, Range<usize>)>,
    /// How many bytes were looked through.
    pub looked: usize,
}

/// What a value in no quotes ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    has_blanks: bool,
    is_cookie: bool,
    /// Whether its sign is percent-encoded.
    is_percent: bool,
}

impl<'a> Ends<'a> {
    pub fn of(layer: &'a Layer<'a>) -> Self {
        let (mut strings, mut next, mut wall) = (Vec::new(), HashMap::new(), None);
        for at in memchr::memchr2_iter(b'"', b'\'', &layer.reading.bytes).rev() {
            if layer.is_quote(at) {
                let same = next.insert(layer.written(at).to_ascii_lowercase(), at);
                let same = same.filter(|same| wall.is_none_or(|wall| *same <= wall));
                strings.push((at, same.ok_or(wall.unwrap_or(layer.len()))));
            }
            if layer.is_wall(at) {
                wall = Some(at);
            }
        }
        strings.reverse();
        Self { layer, strings, scalars: Vec::new(), looked: layer.len() }
    }

    /// Where the string ends that a quote begins.
    pub fn of_string(&self, quote: usize) -> Result<usize, usize> {
        let known = self.strings.binary_search_by_key(&quote, |(at, _)| *at).ok();
        known.and_then(|known| self.strings.get(known)).map_or(Err(self.layer.len()), |(_, end)| *end)
    }

    /// A value without its quotes, and with them.
    pub fn of_value(&mut self, at: usize, name: &Name) -> (Range<usize>, Range<usize>) {
        let layer = self.layer;
        let at = at + self.prefix(at);
        if layer.is_walled(name) && layer.is_wall(at) {
            return (at..at, at..at);
        }
        if layer.is_quote(at) {
            let end = self.of_string(at);
            let (Ok(inner) | Err(inner)) = end;
            return (at + 1..inner, at..inner + usize::from(end.is_ok()));
        }
        let end = match layer.byte(at) {
            Some(b'[' | b'{') => self.of_container(at, name),
            _ => self.of_scalar(at, name),
        };
        (at..end, at..end)
    }

    /// How many letters stand before a quote that are of the string: Python writes `u'text'` and `rb'text'`.
    fn prefix(&self, at: usize) -> usize {
        let rest = self.layer.reading.bytes.get(at..).unwrap_or_default();
        let letters = rest.iter().take(3).take_while(|byte| byte.is_ascii_alphabetic()).count();
        if letters < 3 && self.layer.is_quote(at + letters) && !self.layer.is_wall(at + letters) { letters } else { 0 }
    }

    fn of_scalar(&mut self, at: usize, name: &Name) -> usize {
        let kind = self.kind(name);
        let known = self.scalars.iter().position(|(known, _)| *known == kind);
        let before = known.map(|known| self.scalars.swap_remove(known).1);
        let range = before.filter(|range| range.start <= at && at <= range.end).unwrap_or_else(|| {
            let rest = self.layer.reading.bytes.iter().enumerate().skip(at);
            let length = rest.take_while(|(at, byte)| !self.is_end(*at, **byte, kind)).count();
            self.looked += length;
            at..at + length
        });
        let end = range.end;
        self.scalars.push((kind, range));
        end
    }

    fn kind(&self, name: &Name) -> Kind {
        // A scheme stands before what it is a scheme of, and cookies stand in a row.
        let said = self.layer.said(name.range.clone()).to_ascii_lowercase();
        let is_cookie = said.ends_with("cookie") && self.layer.byte(name.sign) == Some(b':');
        let has_blanks = is_cookie || said.ends_with("authorization");
        Kind { has_blanks, is_cookie, is_percent: self.layer.is_in(b'%', name.sign) }
    }

    fn is_end(&self, at: usize, byte: u8, kind: Kind) -> bool {
        let is_sign = match byte {
            b' ' => !kind.has_blanks,
            b';' => !kind.is_cookie,
            b',' | b'&' | b'}' | b']' | b')' | b'<' | b'>' | b'"' | b'\'' | b'\\' => true,
            byte => byte.is_ascii_whitespace(),
        };
        // In a value that is not percent-encoded, what is so is of the value.
        is_sign && (kind.is_percent || !self.layer.is_in(b'%', at))
    }

    /// Where a list or a map ends that begins at `at`.
    fn of_container(&mut self, begin: usize, name: &Name) -> usize {
        let layer = self.layer;
        let (mut depth, mut at, is_walled) = (0_usize, begin, layer.is_walled(name));
        let end = loop {
            match layer.byte(at) {
                None => break at,
                Some(b'"') if is_walled && layer.is_wall(at) => break at,
                Some(b'"') if layer.is_quote(at) => match self.of_string(at) {
                    Ok(end) => at = end,
                    Err(end) => break end,
                },
                Some(b'[' | b'{') => depth += 1,
                Some(b']' | b'}') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break at + 1;
                    }
                }
                Some(_) => {}
            }
            at += 1;
        };
        self.looked += end - begin;
        end
    }
}
