//! What of a text from outside can be shown as it is. Called by whoever keeps or shows names and words of others.

use std::borrow::Cow;

/// Whether a character can stand in logs, lists, pages and terminals as it is.
pub fn is_plain(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

/// Whether a character shows nothing, and may make what is around it read as what it is not: controls of direction,
/// joiners, separators of lines, tags.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text as it can be shown: what is not plain in it is written out, as `\u{1b}`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let written = |c: char| if is_plain(c) { c.to_string() } else { c.escape_unicode().to_string() };
    Cow::Owned(text.chars().map(written).collect())
}

/// JSON as it can be shown: what is not plain in its texts is escaped, which reads as the same. Lines stay lines.
pub fn in_json(json: &str) -> Cow<'_, str> {
    let is_shown = |c: char| c == '\n' || is_plain(c);
    if json.chars().all(is_shown) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_shown(c) {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_as_the_same_and_has_nothing_that_turns_text() {
        let value = serde_json::json!({ "Zo\u{eb}": "a\u{202e}b\u{2066}\u{200b}\u{85}\u{9b}1m\u{2028}\u{7f}\u{e0041}\n", "n": [1] });
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        let shown = in_json(&text);
        assert!(shown.chars().all(|c| c == '\n' || is_plain(c)), "{shown}");
        assert!(
            shown.contains("Zo\u{eb}")
                && shown.contains(r"a\u202eb\u2066\u200b\u0085\u009b1m\u2028\u007f\udb40\udc41\n"),
            "{shown}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
        assert!(matches!(in_json("{\n}"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_turns_or_hides_text_is_not_plain_and_letters_of_all_scripts_are() {
        assert!("Zoë Ünsal 渡辺 عمر שרה \u{1f600}".chars().all(is_plain));
        let odd = ['\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}', '\u{200b}', '\u{2028}', '\u{e0041}', '\n', '\u{7}'];
        assert!(!odd.into_iter().any(is_plain));
        assert_eq!((shown("Zoë"), shown("a\u{1b}[31mb")), ("Zoë".into(), "a\\u{1b}[31mb".into()));
    }
}
