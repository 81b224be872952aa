//! How one character is written in a text: as it is, or escaped as JSON, URLs, forms, HTML and XML do it, in one layer or
//! several. Called by [`super::redact`], which must find a secret however a service repeats it.

/// How many layers of escapes are looked through: a JSON text in a field of JSON in a form has three.
const LAYERS: u8 = 4;

/// Whether an escape begins with this, or it may stand for another character.
pub fn begins_escape(char: char) -> bool {
    matches!(char, '\\' | '%' | '&' | '+' | '-' | '_')
}

/// How many bytes at the beginning of `text` stand for `char`.
pub fn length(text: &str, char: char) -> Option<usize> {
    within(text, char, LAYERS)
}

fn within(text: &str, char: char, layers: u8) -> Option<usize> {
    // The longest reading counts: what is left of an escape would be taken for something else.
    let literal = text.starts_with(char).then(|| char.len_utf8());
    let space = (char == ' ' && text.starts_with('+')).then_some(1);
    let escaped = layers.checked_sub(1).and_then(|layers| {
        let forms: [fn(&str, char, u8) -> Option<usize>; 3] = [backslash, percent, entity];
        forms.iter().filter_map(|form| form(text, char, layers)).max()
    });
    [literal, space, escaped].into_iter().flatten().max()
}

/// Several characters, each in any way that is left.
fn all(text: &str, chars: impl IntoIterator<Item = char>, layers: u8) -> Option<usize> {
    chars.into_iter().try_fold(0, |at, char| Some(at + within(text.get(at..)?, char, layers)?))
}

/// An escape of JSON (RFC 8259, section 7): a backslash, itself written in any way, and what follows.
fn backslash(text: &str, char: char, layers: u8) -> Option<usize> {
    let behind = within(text, '\\', layers)?;
    let rest = text.get(behind..)?;
    let short = match char {
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        other => other,
    };
    let plain = matches!(char, '"' | '\\' | '/' | '\'' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}');
    let simple = plain.then(|| within(rest, short, layers)).flatten();
    let coded = || {
        let mut units = [0_u16; 2];
        let mut at = 0;
        for (place, unit) in char.encode_utf16(&mut units).iter().enumerate() {
            if place > 0 {
                at += within(rest.get(at..)?, '\\', layers)?;
            }
            let digits = rest.get(at..)?.strip_prefix('u')?.get(..4)?;
            at += (u16::from_str_radix(digits, 16).ok()? == *unit).then_some(5)?;
        }
        Some(at)
    };
    simple.or_else(coded).map(|length| behind + length)
}

/// Percent-encoding (RFC 3986, section 2.1), the percent sign itself written in any way.
fn percent(text: &str, char: char, layers: u8) -> Option<usize> {
    let mut bytes = [0_u8; 4];
    char.encode_utf8(&mut bytes).bytes().try_fold(0, |at, byte| {
        let behind = at + within(text.get(at..)?, '%', layers)?;
        let digits = text.get(behind..behind + 2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        (u8::from_str_radix(digits, 16).ok()? == byte).then_some(behind + 2)
    })
}

/// A character reference of HTML or XML, its signs written in any way.
fn entity(text: &str, char: char, layers: u8) -> Option<usize> {
    let name = match char {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&apos;"),
        _ => None,
    };
    let named = name.and_then(|name| all(text, name.chars(), layers));
    named.or_else(|| {
        let begun = all(text, "&#".chars(), layers)?;
        let rest = text.get(begun..)?;
        let (digits, radix, skipped) = match rest.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16, 1),
            None => (rest, 10, 0),
        };
        let count = digits.bytes().take(8).take_while(u8::is_ascii_hexdigit).count();
        let code = u32::from_str_radix(digits.get(..count)?, radix).ok()?;
        let behind = begun + skipped + count;
        let ended = within(text.get(behind..)?, ';', layers)?;
        (code == u32::from(char)).then_some(behind + ended)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_known_in_each_of_its_forms() {
        for written in ["/", "\\/", "\\\\\\/", "%2f", "%2F", "%252F", "\\u002f", "&#47;", "&#x2F;", "&amp;#47;", "%5C/"]
        {
            assert_eq!(length(&format!("{written}?"), '/'), Some(written.len()), "{written}");
        }
        for other in ["", "a", "\\", "%2", "%2G", "&#48;", "&#47", "\\u002"] {
            assert_eq!(length(other, '/'), None, "{other}");
        }
        assert_eq!(length("\\ud83d\\ude00!", '\u{1f600}'), Some(12));
        assert_eq!(length("%F0%9F%98%80", '\u{1f600}'), Some(12));
    }
}
