//! Lines of files without the secrets in them.
//!
//! Secrets are known from the problems themselves (a literal secret's place), from what stands under a
//! key that sounds like one, and from what looks like one anywhere. The last two matter in files that
//! cannot be parsed, where nobody can say what is what; there, too much is hidden rather than too little.

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

/// Whether a document says what is secret, or the text alone must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// All secrets of the line are among those given.
    All,
    /// There may be more.
    Some,
}

/// A line without what is known to be secret (in characters from zero) and what looks it.
pub fn line(original: &str, known: &[Range<usize>], how_well: Known) -> Line {
    let mut hidden = known.to_vec();
    let characters = |at: usize| original.get(..at).map_or(0, |head| head.chars().count());
    let to_characters = |bytes: Range<usize>| characters(bytes.start)..characters(bytes.end);
    if how_well == Known::Some {
        hidden.extend(under_telling_keys(original).into_iter().map(to_characters));
    }
    let userinfo = USERINFO.captures_iter(original).filter_map(|found| found.get(1));
    hidden.extend(userinfo.map(|found| to_characters(found.range())));
    hidden.extend(LOOKS_SECRET.find_iter(original).filter(looks_random).map(|found| to_characters(found.range())));
    let hidden = joined(hidden);
    let mut text = String::with_capacity(original.len());
    for (at, character) in original.chars().enumerate() {
        match hidden.iter().find(|range| range.contains(&at)) {
            Some(range) if range.start == at => text.push_str(MASK),
            Some(_) => {}
            None => text.push(if is_plain(character) { character } else { ' ' }),
        }
    }
    Line { text, hidden }
}

/// A whole text without what is known to be secret and what looks it.
pub fn text(original: &str, secrets: &[&Place]) -> String {
    let safe = |(place, whole): (usize, &str)| {
        let known: Vec<_> = secrets.iter().filter_map(|secret| stretch(secret, place + 1)).collect();
        line(whole, &known, Known::Some).text
    };
    original.lines().enumerate().map(safe).fold(String::new(), |text, line| text + &line + "\n")
}

/// The part of a line (from one) that a place takes, in characters from zero.
pub fn stretch(place: &Place, number: usize) -> Option<Range<usize>> {
    let Span { start, end } = place.span;
    let from = if start.line == number { start.column.saturating_sub(1) } else { 0 };
    let to = if end.line == number { end.column.saturating_sub(1) } else { usize::MAX };
    (start.line..=end.line).contains(&number).then_some(from..to)
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
        line(text, &[], Known::Some).text
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
        let line = line("a: 0123456789 b", std::slice::from_ref(&(3..13)), Known::All);
        assert_eq!(line.text, "a: •••••• b");
        assert_eq!([line.column(0), line.column(3), line.column(7), line.column(14)], [0, 3, 3, 10]);
    }
}
