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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_or_hides_text_is_not_plain_and_letters_of_all_scripts_are() {
        assert!("Zoë Ünsal 渡辺 عمر שרה \u{1f600}".chars().all(is_plain));
        let odd = ['\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}', '\u{200b}', '\u{2028}', '\u{e0041}', '\n', '\u{7}'];
        assert!(!odd.into_iter().any(is_plain));
        assert_eq!((shown("Zoë"), shown("a\u{1b}[31mb")), ("Zoë".into(), "a\\u{1b}[31mb".into()));
    }
}
