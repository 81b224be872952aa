//! Blocks of integrations whose names would be those of secrets, and whose fields are shown: in a text that is not YAML, a
//! quote among them that is never closed may hold one.

use std::sync::LazyLock;

use regex::Regex;

/// Their names.
pub(super) const BLOCKS: [&str; 4] = ["assertion", "auth", "hmac", "jwt"];

#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static BEGINNING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r#"(?:^|[\s{{\[,"'])(?:{})["']?\s*:(?:\s|$)"#, BLOCKS.join("|"))).expect("a pattern")
});

/// A quoted value with what may follow it.
#[expect(clippy::expect_used, reason = "a pattern that is part of the program")]
static QUOTED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(?:[,}\]):#]|$)"#).expect("a pattern"));

/// The block that a line stands in, by the column of the line that began it.
#[derive(Default)]
pub(super) struct Block {
    column: Option<usize>,
}

impl Block {
    /// Where the quote of a field stands that the line does not close, in bytes. `column` is the one at which the line's
    /// first entry begins; lines come in their order.
    pub(super) fn open_quote(&mut self, line: &str, column: usize) -> Option<usize> {
        self.column = self.column.filter(|begun| column > *begun);
        let fields = match self.column {
            Some(_) => 0,
            None => BEGINNING.find(line)?.end(),
        };
        self.column.get_or_insert(column);
        open_quote(line.get(fields..)?).map(|at| fields + at)
    }
}

/// Where a quoted value begins that has no end before the next one, or a comment.
fn open_quote(text: &str) -> Option<usize> {
    let (mut at, mut last) = (0, None);
    while let Some(char) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let begins = last.is_none_or(|last| "[{,:-".contains(last));
        let is_in_word = text.get(..at).is_some_and(|head| head.ends_with(|before: char| !before.is_whitespace()));
        if char == '#' && !is_in_word {
            return None;
        }
        // A tag or an anchor stands before its value.
        if begins && matches!(char, '!' | '&') {
            at += text.get(at..).and_then(|rest| rest.find(char::is_whitespace)).unwrap_or(text.len());
            continue;
        }
        let value = if begins { QUOTED.find(text.get(at..).unwrap_or_default()) } else { None };
        if begins && matches!(char, '"' | '\'') && value.is_none() {
            return Some(at);
        }
        // What follows the value is looked at next.
        at += value
            .map_or(char.len_utf8(), |value| value.as_str().trim_end_matches([',', '}', ']', ')', ':', '#']).len());
        last = if char.is_whitespace() { last } else { Some(char) };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::open_quote;

    #[test]
    fn a_quote_is_open_when_its_value_has_no_end() {
        for (text, at) in [
            ("{ x: \"abc", Some(5)),
            ("x: 'a' # 'b", None),
            ("# x: 'b", None),
            ("x#: 'b", Some(4)),
            ("x: \"a\\\" b", Some(3)),
            ("x: 'it''s', y: 'z", Some(15)),
            ("x: don't", None),
            ("x: \"{{ a['b'] }}\"", None),
            ("x: a == 'b' and c == 'd", None),
            ("x: a | b('c', 'd') | e", None),
            ("x: \"a\"b", Some(3)),
            ("\"x\": {\"y\": 'z, \"a\": b", Some(11)),
            ("- \"a", Some(2)),
            ("x: !!str \"a", Some(9)),
            ("x: &b !c 'a", Some(9)),
            ("x: &b", None),
        ] {
            assert_eq!(open_quote(text), at, "{text}");
        }
    }
}
