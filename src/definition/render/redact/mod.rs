//! Lines of files without the secrets in them.
//!
//! Secrets are known from the problems themselves (a literal secret's place), from what stands under a
//! key that sounds like one, and from what looks like one anywhere. The last two matter in files that
//! cannot be parsed, where nobody can say what is what; there, too much is hidden rather than too little
//! ([`behind`]).

mod behind;
mod blocks;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::base::plain::is_plain;
use crate::base::span::Span;
use crate::definition::problem::Place;

/// What stands in for a secret, whatever its length.
const MASK: &str = "••••••";

/// The password in an address (RFC 3986 section 3.2.1).
static USERINFO: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant")]
    Regex::new(r"://[^/\s@:]*:([^/\s@]+)@").expect("a valid pattern")
});

/// A line that is safe to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The text: control characters are blanks.
    pub text: String,
    /// The hidden stretches of the original, in characters from zero.
    hidden: Vec<Range<usize>>,
}

impl Line {
    /// Where a character of the original stands now, both from zero.
    pub fn column(&self, original: usize) -> usize {
        let mask = MASK.chars().count();
        let mut column = original;
        for hidden in self.hidden.iter().rev() {
            if original >= hidden.end {
                column = column + mask - hidden.len();
            } else if original > hidden.start {
                column -= original - hidden.start;
            }
        }
        column
    }
}

/// How well it is known what is secret in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// All secrets are among those given.
    All,
    /// All but what comments and the like may have: values under telling keys are hidden besides.
    Most,
    /// The text is not YAML to its end, or part of it was passed over: what follows a telling key is hidden, on its line and
    /// below it, whatever it looks like.
    Little,
}

/// A text of which lines are shown.
#[derive(Debug)]
pub struct Page<'a> {
    lines: Vec<&'a str>,
    known: Known,
    /// From which byte on each line is hidden, where little is known.
    hidden_from: Vec<Option<usize>>,
}

impl<'a> Page<'a> {
    /// Looks through a text once.
    pub fn new(text: &'a str, known: Known) -> Self {
        let lines = lines(text);
        let hidden_from = if known == Known::Little { behind::hidden_from(&lines) } else { Vec::new() };
        Self { lines, known, hidden_from }
    }

    /// A line, from one, without what is known to be secret (in characters from zero) and what looks it.
    pub fn line(&self, number: usize, secrets: &[Range<usize>]) -> Option<Line> {
        let at = number.checked_sub(1)?;
        let original = self.lines.get(at)?.trim_end();
        let mut hidden = to_bytes(original, secrets);
        hidden.extend(self.hidden_from.get(at).copied().flatten().map(|from| from.min(original.len())..original.len()));
        if self.known == Known::Most {
            hidden.extend(under_telling_keys(original));
        }
        hidden.extend(USERINFO.captures_iter(original).filter_map(|found| found.get(1)).map(|found| found.range()));
        hidden.extend(LOOKS_SECRET.find_iter(original).filter(looks_random).map(|found| found.range()));
        Some(masked(original, joined(hidden)))
    }
}

/// The lines of a text as YAML counts them (1.2, section 5.4): a carriage return ends one as well.
pub fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.find(['\n', '\r']) {
        let (line, after) = rest.split_at(end);
        lines.push(line);
        rest = after.strip_prefix("\r\n").unwrap_or_else(|| after.get(1..).unwrap_or_default());
    }
    lines.extend((!rest.is_empty()).then_some(rest));
    lines
}

/// A whole text without what is known to be secret and what looks it.
pub fn text(original: &str, secrets: &[&Place], known: Known) -> String {
    let page = Page::new(original, known);
    let mut on_lines: BTreeMap<usize, Vec<Range<usize>>> = (1..=page.lines.len()).map(|line| (line, vec![])).collect();
    spread(secrets.iter().copied(), &mut on_lines);
    let shown = on_lines.iter().filter_map(|(number, secrets)| page.line(*number, secrets));
    shown.fold(String::with_capacity(original.len()), |text, line| text + &line.text + "\n")
}

/// Puts the stretches that places take of the lines which are asked for, in characters from zero, to those lines.
pub fn spread<'a>(places: impl IntoIterator<Item = &'a Place>, lines: &mut BTreeMap<usize, Vec<Range<usize>>>) {
    // Aliases repeat places.
    let spans: HashSet<Span> = places.into_iter().map(|place| place.span).collect();
    for Span { start, end } in spans.into_iter().filter(|span| span.start <= span.end) {
        for (line, stretches) in lines.range_mut(start.line..=end.line) {
            let from = if start.line == *line { start.column.saturating_sub(1) } else { 0 };
            let to = if end.line == *line { end.column.saturating_sub(1) } else { usize::MAX };
            stretches.push(from..to);
        }
    }
}

/// Stretches in characters as stretches in bytes.
fn to_bytes(line: &str, stretches: &[Range<usize>]) -> Vec<Range<usize>> {
    if stretches.is_empty() {
        return Vec::new();
    }
    let places: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
    let byte = |character: usize| places.get(character).copied().unwrap_or(line.len());
    stretches.iter().map(|stretch| byte(stretch.start)..byte(stretch.end)).collect()
}

/// A line without some stretches of it, in bytes and in order.
fn masked(original: &str, stretches: Vec<Range<usize>>) -> Line {
    let (mut text, mut hidden) = (String::with_capacity(original.len()), Vec::with_capacity(stretches.len()));
    let (mut at, mut characters) = (0, 0);
    let show = |part: &str, text: &mut String| {
        text.extend(part.chars().map(|character| if is_plain(character) { character } else { ' ' }));
        part.chars().count()
    };
    for stretch in stretches {
        characters += show(original.get(at..stretch.start).unwrap_or_default(), &mut text);
        text.push_str(MASK);
        let length = original.get(stretch.clone()).map_or(0, |part| part.chars().count());
        hidden.push(characters..characters + length);
        characters += length;
        at = stretch.end;
    }
    show(original.get(at..).unwrap_or_default(), &mut text);
    Line { text, hidden }
}

fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether a key sounds as if a secret stood under it.
pub fn is_telling(key: &str) -> bool {
    TELLING_KEY.find(&format!("{key}: ")).is_some_and(|found| found.start() == 0)
}

/// Whether a name of a field may be shown as it is: one that is none may be a line of something else, or a secret.
pub fn is_name(name: &str) -> bool {
    let is_like_one = name.chars().count() <= 80 && !name.contains([':', '=', '@']);
    is_like_one && !LOOKS_SECRET.find_iter(name).any(|found| looks_random(&found))
}

/// What stands under keys that sound like secrets, unless it is a reference or template. In bytes.
fn under_telling_keys(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let telling = TELLING_KEY.find_iter(line).map(|key| (key, false));
    let short = SHORT_KEY.find_iter(line).map(|key| (key, true));
    for (key, is_short) in telling.chain(short) {
        let rest = line.get(key.end()..).unwrap_or_default();
        let value = rest.trim_start_matches([' ', '[', '"', '\'']);
        let start = line.len() - value.len();
        let harmless = is_reference(value) || value.starts_with("{{") || value.starts_with(['{', '#', '|', '>']);
        if harmless || value.is_empty() || value.trim_end().ends_with(':') || is_short && SPEAKING.is_match(value) {
            continue;
        }
        let opening = line.get(..start).and_then(|head| head.chars().next_back());
        let in_braces = line.get(..key.start()).is_some_and(|head| head.contains('{'));
        let length = match opening {
            Some(quote @ ('"' | '\'')) => value.find(quote).unwrap_or(value.len()),
            Some('[') => value.find(']').unwrap_or(value.len()),
            _ if in_braces => value.find([',', '}']).unwrap_or(value.len()),
            _ => value.trim_end().len(),
        };
        found.push(start..start + length);
    }
    found
}

/// Whether a value is a reference with nothing beside it and nothing to stand in for it.
fn is_reference(value: &str) -> bool {
    let inner = value.strip_prefix("${").and_then(|rest| rest.split_once('}'));
    inner.is_some_and(|(inner, rest)| {
        let has_default = inner.split_once(":-").is_some_and(|(_, default)| !default.is_empty());
        !has_default && !rest.starts_with(|c: char| c.is_alphanumeric() || "$-_.+/=".contains(c))
    })
}

/// Long runs are secret when they mix digits and both cases, as words and paths do not. Those with a
/// well-known prefix are shorter than that or begin with it.
fn looks_random(found: &regex::Match<'_>) -> bool {
    let text = found.as_str();
    let has = |test: fn(char) -> bool| text.chars().any(test);
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.len() >= 32;
    KNOWN_PREFIX.is_match(text)
        || is_hexadecimal && has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_alphabetic())
        || (has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_lowercase()) && has(|c| c.is_ascii_uppercase()))
}

#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static TELLING_KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)[\w-]*(?:secrets?|secert|secrt|passw(?:or)?d|pass|api[_-]?key|private[_-]?key|signing[_-]?key|(?:access|refresh|auth)[_-]?token|bearer)["']?\s*:(?:\s|$)"#)
        .expect("a pattern")
});

/// The gateway file's own names for secrets, which mean other things elsewhere; also without the colon that was forgotten.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static SHORT_KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)(?:^|[\s{,\["'])(?:key|tokens?)["']?(?:\s*:(?:\s|$)|\s+["'@`])"#).expect("a pattern")
});

/// What these names have where they mean something else: a word, a path of names, an address.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static SPEAKING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"^(?:(?:[A-Z]+ )?(?:https?:/)?/|[a-z_]{1,24}(?:\.[A-Za-z_]\w*|\['?[\w-]+'?\])*["']?\s*(?:[,}\]#|]|$))"#,
    )
    .expect("a pattern")
});

const PREFIXES: &str = r"(?:sk|rk|pk)_(?:live|test)_|gh[pousr]_|github_pat_|xox[abeprs]-|whsec_|AKIA|eyJ|ya29\.|glpat-|SG\.|AIza|npm_|shpat_";

#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static KNOWN_PREFIX: LazyLock<Regex> = LazyLock::new(|| Regex::new(&format!("^(?:{PREFIXES})")).expect("a pattern"));

#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static LOOKS_SECRET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"\b(?:{PREFIXES})[A-Za-z0-9+/=_.\-]{{6,}}|[A-Za-z0-9+/_\-]{{32,}}={{0,2}}"))
        .expect("a pattern")
});

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Page::new(text, Known::Most).line(1, &[]).map(|line| line.text).unwrap_or_default()
    }

    #[test]
    fn secrets_are_hidden_and_their_neighbours_are_not() {
        for (text, expected) in [
            ("  base_url: https://user:hunter2@a.example/x", "  base_url: https://user:••••••@a.example/x"),
            ("  secret: hunter2 and more", "  secret: ••••••"),
            ("client: { id: a, secret: \"hun,ter2\", x: y }", "client: { id: a, secret: \"••••••\", x: y }"),
            ("client: { secret: \"never closed }", "client: { secret: \"••••••"),
            ("secrets: [\"hunter2\"]", "secrets: [\"••••••\"]"),
            ("secret: ${env:A:-hunter2}", "secret: ••••••"),
            ("secret: ${env:A}hunter2", "secret: ••••••"),
            ("secert: hunter2", "secert: ••••••"),
            ("note: my key is sk_live_abcdefgh!", "note: my key is ••••••!"),
            ("x: abcDEF0123456789abcDEF0123456789", "x: ••••••"),
            ("key c0ffeec0ffeec0ffeec0ffeec0ffee01", "key ••••••"),
            ("    key: \"c0ffee1234", "    key: \"••••••"),
            ("  token: AAA1", "  token: ••••••"),
            ("admin: { token: 'AAA1, x: 1 }", "admin: { token: '••••••"),
            ("tokens: [\"hunter2\" }", "tokens: [\"••••••\" }"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        for text in [
            "secrets: [\"${env:A}\"]",
            "secret: ${env:A}",
            "signing_secret: \"{{ x }}\"",
            "key: record.id",
            "key: body.items['x']",
            "credential: token user",
            "token: default",
            "token: POST https://a.example/token",
            "tokens: { default: { access: body.id } }",
            "# the key that signs",
            "token: https://slack.com/api/oauth.v2.access",
            "credential: client",
            "pattern: \"^(sk|rk)_(test|live)_\"",
            "scopes: [\"https://www.googleapis.com/auth/calendar.readonly\"]",
            "# yaml-language-server: $schema=../schemas/integration.schema.json",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn columns_follow_what_was_hidden() {
        let page = Page::new("a: 0123456789 b", Known::All);
        let line = page.line(1, std::slice::from_ref(&(3..13))).expect("a line");
        assert_eq!(line.text, "a: •••••• b");
        assert_eq!([line.column(0), line.column(3), line.column(7), line.column(14)], [0, 3, 3, 10]);
    }

    #[test]
    fn lines_are_those_of_yaml_and_places_are_hidden_on_each_of_theirs() {
        assert_eq!(lines("a\r\nb\rc\n\nd"), ["a", "b", "c", "", "d"]);
        let at = |line, column| crate::base::span::Position { line, column };
        let span = Span { start: at(1, 4), end: at(2, 6) };
        let place = Place { span, ..Place::file(std::sync::Arc::default()) };
        assert_eq!(text("a: \u{e9}x\r  y\u{e9}z w\n", &[&place, &place], Known::All), "a: ••••••\n•••••• w\n");
    }
}
