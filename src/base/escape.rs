//! How one character is written in a text: as it is, or escaped as JSON, URLs, forms, HTML and XML do it, in one layer or
//! several. Called by [`super::redact`], which must find a secret however a service repeats it.

/// How many layers of escapes are looked through: a JSON text in a field of JSON in a form has three.
const LAYERS: u8 = 4;

/// Whether an escape begins with this, or it may stand for another character.
pub fn begins_escape(char: char) -> bool {
    matches!(char, '\\' | '%' | '&' | '+' | '-' | '_')
}

/// How many bytes at the beginning of `text` may stand for `char`: none, or one number for each reading.
pub fn lengths(text: &str, char: char) -> Vec<usize> {
    within(text, char, LAYERS)
}

fn within(text: &str, char: char, layers: u8) -> Vec<usize> {
    let mut found = Vec::new();
    if text.starts_with(char) {
        found.push(char.len_utf8());
    }
    if char == ' ' && text.starts_with('+') {
        found.push(1);
    }
    if let Some(layers) = layers.checked_sub(1)
        && text.starts_with(['\\', '%', '&'])
    {
        for form in [backslash, percent, entity] {
            found.extend(form(text, char, layers));
        }
        found.sort_unstable();
        found.dedup();
    }
    found
}

/// Where the text goes on behind `char`, from each of these places.
fn behind(text: &str, places: &[usize], char: char, layers: u8) -> Vec<usize> {
    let from = |at: &usize| {
        let lengths = text.get(*at..).map(|rest| within(rest, char, layers)).unwrap_or_default();
        lengths.into_iter().map(|length| at + length).collect::<Vec<_>>()
    };
    let mut found: Vec<usize> = places.iter().flat_map(from).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Behind several characters, each in any way that is left.
fn behind_all(text: &str, chars: &str, layers: u8) -> Vec<usize> {
    chars.chars().fold(vec![0], |places, char| behind(text, &places, char, layers))
}

/// An escape of JSON (RFC 8259, section 7): a backslash, itself written in any way, and what follows.
fn backslash(text: &str, char: char, layers: u8) -> Vec<usize> {
    let begun = within(text, '\\', layers);
    let short = match char {
        '"' | '\\' | '/' | '\'' => Some(char),
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        '\u{8}' => Some('b'),
        '\u{c}' => Some('f'),
        _ => None,
    };
    let mut found = short.map(|short| behind(text, &begun, short, layers)).unwrap_or_default();
    let mut units = [0_u16; 2];
    let mut places = begun;
    for (place, unit) in char.encode_utf16(&mut units).iter().enumerate() {
        if place > 0 {
            places = behind(text, &places, '\\', layers);
        }
        places = places.into_iter().filter(|at| is_unit(text, *at, *unit)).map(|at| at + 5).collect();
    }
    found.extend(places);
    found
}

/// Whether `uXXXX` stands there, with the digits of this unit.
fn is_unit(text: &str, at: usize, unit: u16) -> bool {
    let digits = text.get(at..at + 5).and_then(|escape| escape.strip_prefix('u'));
    digits.is_some_and(|digits| u16::from_str_radix(digits, 16) == Ok(unit))
}

/// Percent-encoding (RFC 3986, section 2.1), the percent sign itself written in any way.
fn percent(text: &str, char: char, layers: u8) -> Vec<usize> {
    let mut bytes = [0_u8; 4];
    char.encode_utf8(&mut bytes).bytes().fold(vec![0], |places, byte| {
        let is_byte = |at: usize| {
            let digits = text.get(at..at + 2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            digits.is_some_and(|digits| u8::from_str_radix(digits, 16) == Ok(byte))
        };
        let signs = behind(text, &places, '%', layers);
        signs.into_iter().filter(|at| is_byte(*at)).map(|at| at + 2).collect()
    })
}

/// A character reference of HTML or XML, its signs written in any way.
fn entity(text: &str, char: char, layers: u8) -> Vec<usize> {
    let name = match char {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&apos;"),
        _ => None,
    };
    let mut found = name.map(|name| behind_all(text, name, layers)).unwrap_or_default();
    let numbered = behind_all(text, "&#", layers);
    let ends: Vec<usize> = numbered.into_iter().filter_map(|at| behind_number(text, at, char)).collect();
    found.extend(behind(text, &ends, ';', layers));
    found
}

/// Behind the number of a character reference, where it is this character's.
fn behind_number(text: &str, at: usize, char: char) -> Option<usize> {
    let rest = text.get(at..)?;
    let (digits, radix, skipped) = match rest.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16, 1),
        None => (rest, 10, 0),
    };
    let count = digits.bytes().take(8).take_while(u8::is_ascii_hexdigit).count();
    let code = u32::from_str_radix(digits.get(..count)?, radix).ok()?;
    (code == u32::from(char)).then_some(at + skipped + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_known_in_each_of_its_forms() {
        for written in ["/", "\\/", "\\\\\\/", "%2f", "%2F", "%252F", "\\u002f", "&#47;", "&#x2F;", "&amp;#47;", "%5C/"]
        {
            assert!(lengths(&format!("{written}?"), '/').contains(&written.len()), "{written}");
        }
        for other in ["", "a", "\\", "%2", "%2G", "&#48;", "&#47", "\\u002"] {
            assert!(lengths(other, '/').is_empty(), "{other}");
        }
        assert_eq!(lengths("\\ud83d\\ude00!", '\u{1f600}'), [12]);
        assert_eq!(lengths("%F0%9F%98%80", '\u{1f600}'), [12]);
    }
}
