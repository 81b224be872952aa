//! The written form of references: `${env:NAME}`, `${env:NAME:-default}`, `${file:PATH}`,
//! `${vault:PATH#FIELD}`, `$$`.

use std::ops::Range;

/// A part of a text that may hold references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// Text that stands for itself.
    Text(&'a str),
    /// `$$`: one dollar.
    Dollar,
    /// A reference, and where it stands in the text, in bytes.
    Reference(Reference<'a>, Range<usize>),
    /// Something that begins like a reference and is none.
    Broken(Fault, Range<usize>),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// An environment variable, and what stands in for it when it is not set or empty.
    Env(&'a str, Option<&'a str>),
    /// A file's content; the path is relative to the file that names it.
    File(&'a str),
    /// A field of a secret in the secret store: its path and its name.
    Vault(&'a str, &'a str),
}

/// What is wrong with something that begins like a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no `}`.
    Unclosed,
    /// The word before the colon is not known.
    UnknownSource(String),
    /// There is no colon: only a name.
    BareName(String),
    /// The name or path is empty or has a wrong form.
    BadName(String),
    /// It does not name a field of a secret.
    BadSecret(String),
}

/// Whether a text has anything that [`parts`] would not give back as it is.
pub fn has_dollar_form(text: &str) -> bool {
    text.contains("${") || text.contains("$$")
}

/// Whether a text says something of its own that a reference does not bring in: what stands beside
/// references, and what stands in for one. Blanks say nothing.
pub fn says_itself(text: &str) -> bool {
    parts(text).iter().any(|part| match part {
        Part::Text(text) => !text.trim().is_empty(),
        Part::Dollar => true,
        Part::Reference(Reference::Env(_, default), _) => default.is_some_and(|default| !default.is_empty()),
        Part::Reference(..) => false,
        Part::Broken(fault, _) => *fault == Fault::Unclosed,
    })
}

/// Splits a text at its references.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut at, mut plain) = (Vec::new(), 0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('$')) {
        let start = at + found;
        let rest = text.get(start + 1..).unwrap_or_default();
        let (part, end) = match rest.strip_prefix('{') {
            Some(inner) => braced(inner, start, text.len()),
            None if rest.starts_with('$') => (Part::Dollar, start + 2),
            None => {
                at = start + 1;
                continue;
            }
        };
        parts.extend(text.get(plain..start).filter(|text| !text.is_empty()).map(Part::Text));
        parts.push(part);
        (at, plain) = (end, end);
    }
    parts.extend(text.get(plain..).filter(|text| !text.is_empty()).map(Part::Text));
    parts
}

/// Reads what follows a `${` at `start`, and tells where it ends.
fn braced(inner: &str, start: usize, length: usize) -> (Part<'_>, usize) {
    let Some((inside, _)) = inner.split_once('}') else {
        return (Part::Broken(Fault::Unclosed, start..length), length);
    };
    let range = start..start + inside.len() + 3;
    let end = range.end;
    match reference(inside) {
        Ok(found) => (Part::Reference(found, range), end),
        Err(fault) => (Part::Broken(fault, range), end),
    }
}

/// Reads what stands between `${` and `}`.
fn reference(inner: &str) -> Result<Reference<'_>, Fault> {
    let Some((source, rest)) = inner.split_once(':') else { return Err(Fault::BareName(inner.to_owned())) };
    match source {
        "env" => {
            let (name, default) = match rest.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (rest, None),
            };
            if is_variable(name) { Ok(Reference::Env(name, default)) } else { Err(Fault::BadName(name.to_owned())) }
        }
        "file" if rest.is_empty() => Err(Fault::BadName(String::new())),
        "file" => Ok(Reference::File(rest)),
        "vault" => match rest.rsplit_once('#') {
            Some((path, field)) if is_secret_path(path) && !field.is_empty() => Ok(Reference::Vault(path, field)),
            _ => Err(Fault::BadSecret(rest.to_owned())),
        },
        _ => Err(Fault::UnknownSource(source.to_owned())),
    }
}

/// Whether a path has one reading only: plain segments, none of which leads elsewhere.
pub fn is_secret_path(path: &str) -> bool {
    let plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@: ".contains(&byte))
    };
    path.split('/').all(plain)
}

fn is_variable(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_split_from_text() {
        let expected = [
            Part::Text("a"),
            Part::Reference(Reference::Env("B", None), 1..9),
            Part::Text("é$c"),
            Part::Dollar,
            Part::Text("{env:D}"),
            Part::Reference(Reference::Env("E", Some("f:-g")), 22..36),
            Part::Reference(Reference::File("./h"), 36..47),
        ];
        assert_eq!(parts("a${env:B}é$c$${env:D}${env:E:-f:-g}${file:./h}"), expected);
    }

    #[test]
    fn near_misses_are_told_apart() {
        let fault = |text: &str| match parts(text).pop() {
            Some(Part::Broken(fault, _)) => Some(fault),
            _ => None,
        };
        assert_eq!(fault("${env:A"), Some(Fault::Unclosed));
        assert_eq!(fault("${A}"), Some(Fault::BareName("A".to_owned())));
        assert_eq!(fault("${envv:A}"), Some(Fault::UnknownSource("envv".to_owned())));
        assert_eq!(fault("${env:1A}"), Some(Fault::BadName("1A".to_owned())));
        assert_eq!(fault("a $ b $c"), None);
        assert_eq!(parts("${vault:a/b#c}"), [Part::Reference(Reference::Vault("a/b", "c"), 0..14)]);
        for bad in ["a/b", "#c", "a/b#", "/a#c", "a/../b#c", "a//b#c", "a?b#c", ""] {
            let text = format!("${{vault:{bad}}}");
            assert_eq!(fault(&text), Some(Fault::BadSecret(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn what_a_text_says_itself_is_known() {
        for text in ["a", "a${env:B}", "${env:B}$$", "${env:B:-c}", "${env:B", "x ${file:y}"] {
            assert!(says_itself(text), "{text}");
        }
        for text in ["", "${env:B}", "${env:B:-}", "${file:a}\n${file:b}\n", "${vault:a#b}", "${B}"] {
            assert!(!says_itself(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_gets_lost(text in "(\\$|\\{|\\}|env:|A|é|:-|file:){0,20}") {
            let length: usize = parts(&text).iter().map(|part| match part {
                Part::Text(text) => text.len(),
                Part::Dollar => 2,
                Part::Reference(_, range) | Part::Broken(_, range) => range.len(),
            }).sum();
            prop_assert_eq!(length, text.len());
        }
    }
}
