//! Where values and strings end in a layer of a text. Called by [`super::pairs`].

use std::collections::HashMap;
use std::ops::Range;

use super::layer::{Layer, Name};
use crate::base::escape;

/// Where values and strings end. Each stretch is looked through once for each kind of end, however many values begin in
/// it, so that the work is as long as the text.
pub struct Ends<'a> {
    layer: &'a Layer<'a>,
    /// The quotes, and where what each begins ends: with the same sign, written alike; without one where the text ends, or
    /// the string of JSON.
    strings: Vec<(usize, Result<usize, usize>)>,
    /// Where a value was looked for last by each kind of end: from there to where it ends, all end alike.
    scalars: Vec<(Kind, Range<usize>)>,
    /// Whether the text, as it stands, is a form.
    is_form: bool,
    /// How many bytes were looked through.
    pub looked: usize,
}

/// Where a name stands, as far as it tells where its value ends.
pub struct Context {
    /// Where the string ends that the name stands in.
    pub limit: Option<usize>,
    /// Whether it stands in a tag.
    pub is_in_tag: bool,
    /// Whether the value is taken out, whole.
    pub is_taken: bool,
}

/// What a value in no quotes ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    way: Way,
    /// Whether its sign is percent-encoded.
    is_percent: bool,
    is_in_tag: bool,
    /// Whether a backslash is one: nothing says that the text has escapes.
    is_raw: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In JSON and the like, and in the middle of a line: at blanks and signs.
    Pair,
    /// A scheme stands before what it is a scheme of.
    Scheme,
    Cookies,
    /// Of a form that is the text: at `&`.
    Form,
    /// Of an address, or of a form in something else: at `&` and blanks.
    Query,
    /// Behind `=` in other texts: at blanks, and at signs that nothing of the value follows.
    Assigned,
    /// Behind a name that begins a line: with the line.
    Line,
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
        let end = layer.name_end(0);
        let is_form = layer.reading.is_plain() && layer.walls.is_empty() && end > 0 && layer.byte(end) == Some(b'=');
        Self { layer, strings, scalars: Vec::new(), is_form, looked: layer.len() }
    }

    /// Where the string ends that a quote begins.
    pub fn of_string(&self, quote: usize) -> Result<usize, usize> {
        let known = self.strings.binary_search_by_key(&quote, |(at, _)| *at).ok();
        known.and_then(|known| self.strings.get(known)).map_or(Err(self.layer.len()), |(_, end)| *end)
    }

    /// A value without its quotes, and with them.
    pub fn of_value(&mut self, at: usize, name: &Name, context: &Context) -> (Range<usize>, Range<usize>) {
        let layer = self.layer;
        let at = at + self.prefix(at, context);
        if layer.is_walled(name) && layer.is_wall(at) || context.limit.is_some_and(|limit| limit <= at) {
            return (at..at, at..at);
        }
        let (inner, whole) = if layer.is_quote(at) {
            let end = self.of_quoted(at, context);
            let (Ok(inner) | Err(inner)) = end;
            (at + 1..inner, at..inner + usize::from(end.is_ok()))
        } else {
            let end = match layer.byte(at) {
                Some(b'[' | b'{') => self.of_container(at, name),
                _ => return self.in_no_quotes(at, name, context),
            };
            (at..end, at..end)
        };
        // `'a'b` in a form, or `{a}b`.
        let is_assigned = context.is_taken && name.quote.is_none() && layer.byte(name.sign) == Some(b'=');
        let is_of_form = self.is_form && self.begins_query(name);
        let is_of_it = |byte: u8| is_of_form || !byte.is_ascii_whitespace() && !b"&,;)]}<>/\"'\\".contains(&byte);
        if is_assigned && context.limit != Some(whole.end) && layer.byte(whole.end).is_some_and(is_of_it) {
            let (_, rest) = self.in_no_quotes(whole.end, name, context);
            if rest.end > whole.end {
                return (at..rest.end, at..rest.end);
            }
        }
        (inner, whole)
    }

    /// Where a string ends that is a value: three quotes end with three, and two within it are one of the text.
    fn of_quoted(&self, at: usize, context: &Context) -> Result<usize, usize> {
        let layer = self.layer;
        let is_same = |other: usize| {
            layer.is_quote(other) && !layer.is_wall(other) && {
                layer.written(other).eq_ignore_ascii_case(layer.written(at))
            }
        };
        let mut end = self.of_string(at);
        if !context.is_taken {
            return end;
        }
        if layer.byte(at) == Some(b'"') && is_same(at + 1) && is_same(at + 2) {
            end = self.of_string(at + 2);
            while let Ok(one) = end
                && !(is_same(one + 1) && is_same(one + 2))
            {
                end = self.of_string(one);
            }
            return end.map(|first| first + 2);
        }
        while let Ok(one) = end
            && is_same(one + 1)
        {
            end = self.of_string(one + 1);
        }
        end
    }

    fn in_no_quotes(&mut self, at: usize, name: &Name, context: &Context) -> (Range<usize>, Range<usize>) {
        let layer = self.layer;
        let kind = self.kind(at, name, context);
        let end = match kind.way {
            Way::Line if context.is_taken => self.of_lines(at, name, kind),
            _ => self.of_scalar(at, kind),
        };
        let limit = match kind.way {
            Way::Pair | Way::Scheme | Way::Cookies | Way::Form => layer.len(),
            Way::Query | Way::Assigned | Way::Line => context.limit.unwrap_or(layer.len()),
        };
        let wall = if layer.is_walled(name) { layer.wall(at) } else { layer.len() };
        let mut end = end.min(limit).min(wall);
        if kind.way == Way::Line {
            let value = layer.reading.bytes.get(at..end).unwrap_or_default();
            let is_behind = |byte: &&u8| byte.is_ascii_whitespace() || matches!(**byte, b',' | b';');
            end -= value.iter().rev().take_while(is_behind).count();
        }
        (at..end, at..end)
    }

    /// How many letters stand before a quote that are of the string: Python writes `u'text'` and `rb'text'`.
    fn prefix(&self, at: usize, context: &Context) -> usize {
        let rest = self.layer.reading.bytes.get(at..).unwrap_or_default();
        let letters = rest.iter().take(3).take_while(|byte| b"bfruBFRU".contains(byte)).count();
        let quote = at + letters;
        let is_of_it = letters < 3 && self.layer.is_quote(quote) && !self.layer.is_wall(quote);
        if is_of_it && context.limit != Some(quote) { letters } else { 0 }
    }

    fn of_scalar(&mut self, at: usize, kind: Kind) -> usize {
        let known = self.scalars.iter().position(|(known, _)| *known == kind);
        let before = known.map(|known| self.scalars.swap_remove(known).1);
        let range = before.filter(|range| range.start <= at && at <= range.end).unwrap_or_else(|| {
            let end = self.look(at, kind);
            self.looked += end - at;
            at..end
        });
        let end = range.end;
        self.scalars.push((kind, range));
        end
    }

    fn look(&self, begin: usize, kind: Kind) -> usize {
        let bytes = &self.layer.reading.bytes;
        let (mut at, mut kept) = (begin, begin);
        while let Some(byte) = self.layer.byte(at) {
            if kind.way == Way::Form && byte == b' ' && kept <= at {
                // A blank that was not encoded: it is of the value where no other pair follows before the next `&`.
                let rest = bytes.get(at..).unwrap_or_default();
                let next = memchr::memchr3(b'&', b'=', b'\n', rest).map_or(bytes.len(), |next| at + next);
                kept = if matches!(self.layer.byte(next), None | Some(b'&')) { next } else { at };
            }
            // In a value that is not percent-encoded, what is so is of the value.
            if at >= kept && self.is_end(at, byte, kind) && (kind.is_percent || !self.layer.is_in(b'%', at)) {
                break;
            }
            at += 1;
        }
        at
    }

    fn kind(&self, at: usize, name: &Name, context: &Context) -> Kind {
        let layer = self.layer;
        let said = layer.said(name.range.clone()).to_ascii_lowercase();
        let (is_bare, sign) = (name.quote.is_none(), layer.byte(name.sign));
        let is_authorization = said.ends_with("authorization");
        // `password = x` in a file of settings, and `password: x`.
        let is_apart = sign == Some(b':') || name.range.end < name.sign;
        let is_line = is_apart
            && (layer.walls.is_empty() && self.line_begin(name).is_some()
                || is_authorization && self.has_parameters(at));
        let way = match sign {
            _ if is_bare && is_line => Way::Line,
            Some(b'=') if is_bare && !self.begins_query(name) => Way::Assigned,
            Some(b'=') if is_bare && self.is_form => Way::Form,
            Some(b'=') if is_bare => Way::Query,
            Some(b':') if said.ends_with("cookie") => Way::Cookies,
            _ if is_authorization => Way::Scheme,
            _ => Way::Pair,
        };
        let is_raw = context.limit.is_none() && layer.walls.is_empty() && layer.reading.is_plain();
        Kind { way, is_percent: layer.is_in(b'%', name.sign), is_in_tag: context.is_in_tag, is_raw }
    }

    /// Whether a name with its sign begins a form or what is asked of an address, or is the next there.
    fn begins_query(&self, name: &Name) -> bool {
        let before = name.range.start.checked_sub(1);
        let begins = |at| matches!(self.layer.byte(at), Some(b'?' | b'&' | b'#')) || self.layer.is_quote(at);
        name.range.end == name.sign && before.is_none_or(begins)
    }

    /// Where the line begins of which a name is the first word.
    fn line_begin(&self, name: &Name) -> Option<usize> {
        let before = self.layer.reading.bytes.get(..name.range.start)?;
        let is_between = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'-' | b'?' | b'*' | b'#');
        let begin = name.range.start - before.iter().rev().take_while(is_between).count();
        let is_begin = begin.checked_sub(1).is_none_or(|end| matches!(self.layer.byte(end), Some(b'\n' | b'\r')));
        is_begin.then_some(begin)
    }

    /// Whether a value is a scheme with parameters: `Digest username="u", response="x"`.
    fn has_parameters(&self, at: usize) -> bool {
        let run = |at: usize| {
            let rest = self.layer.reading.bytes.get(at..).unwrap_or_default();
            at + rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count()
        };
        let scheme = run(at);
        let parameter = run(scheme + 1);
        self.layer.byte(scheme) == Some(b' ') && parameter > scheme + 1 && self.layer.byte(parameter) == Some(b'=')
    }

    fn is_end(&self, at: usize, byte: u8, kind: Kind) -> bool {
        let next = self.layer.byte(at + 1);
        let is_tag = || next.is_some_and(|next| next.is_ascii_alphabetic() || matches!(next, b'/' | b'!' | b'?'));
        // What an escape stands for ends the value in the layer in which it is read, if at all.
        let is_escape = || !kind.is_raw && escape::begins(self.layer.reading.bytes.get(at..).unwrap_or_default());
        let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        match (kind.way, byte) {
            (Way::Form, byte) => byte == b'&' || byte.is_ascii_whitespace(),
            (Way::Line, b'\n' | b'\r') | (Way::Query | Way::Assigned, b'&') => true,
            (Way::Line, b'<') => next == Some(b'/'),
            (Way::Query | Way::Assigned | Way::Line, b'\\') => is_escape(),
            (Way::Line, _) | (Way::Scheme | Way::Cookies, b' ') | (Way::Cookies, b';') => false,
            (Way::Query | Way::Assigned, b'<') => is_tag(),
            (Way::Query | Way::Assigned, b'>') => kind.is_in_tag,
            (Way::Assigned, b',' | b';') => next.is_none_or(|next| next.is_ascii_whitespace()) || self.is_named(at + 1),
            (Way::Assigned, b')' | b']' | b'}' | b'"' | b'\'') => !is_word(next),
            (Way::Query | Way::Assigned, byte) => byte.is_ascii_whitespace(),
            (_, b',' | b'&' | b';' | b'}' | b']' | b')' | b'<' | b'>' | b'"' | b'\'' | b'\\') => true,
            (_, byte) => byte.is_ascii_whitespace(),
        }
    }

    /// Whether a name with its sign is at `at`.
    fn is_named(&self, at: usize) -> bool {
        let end = self.layer.name_end(at);
        end > at && matches!(self.layer.byte(end), Some(b'=' | b':'))
    }

    /// Where a value ends that is the rest of its line, or stands below its name: deeper, or as a list.
    fn of_lines(&mut self, at: usize, name: &Name, kind: Kind) -> usize {
        let layer = self.layer;
        let between = layer.reading.bytes.get(name.sign..at).unwrap_or_default();
        let line = between.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map(|line| name.sign + line + 1);
        let Some(column) = self.line_begin(name).map(|begin| name.range.start - begin) else {
            return self.of_scalar(at, kind);
        };
        let is_within = |line: usize, at: usize| {
            let is_item =
                layer.byte(at) == Some(b'-') && layer.byte(at + 1).is_none_or(|next| next.is_ascii_whitespace());
            at - line > column || is_item && at - line == column
        };
        if line.is_some_and(|line| !is_within(line, at)) {
            return at;
        }
        let mut end = self.of_scalar(at, kind);
        let value = layer.reading.bytes.get(at..end).unwrap_or_default();
        let is_block =
            matches!(value, [b'|' | b'>', rest @ ..] if rest.iter().all(|byte| b"+-0123456789 ".contains(byte)));
        while (line.is_some() || is_block) && end < layer.len() {
            let rest = layer.reading.bytes.get(end..).unwrap_or_default();
            let begin = end + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let blanks = rest.get(..begin - end).unwrap_or_default();
            let Some(line) = blanks.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map(|line| end + line + 1)
            else {
                break;
            };
            if begin == layer.len() || !is_within(line, begin) {
                break;
            }
            end = self.of_scalar(begin, kind);
        }
        end
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
