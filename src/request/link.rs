//! The `Link` header (RFC 8288): where a relation leads.
//!
//! Reads what a service wrote; what is not well-formed leads nowhere. Called by the proxy door for the next page.

/// The target of the first link with this relation, as it is written: absolute or relative.
pub fn target<'a>(value: &'a str, relation: &str) -> Option<&'a str> {
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let (parameters, next) = divided(after, ',');
        if relates(parameters, relation) {
            return Some(target);
        }
        rest = next;
    }
}

/// Whether a link's parameters name a relation. Only the first `rel` counts; it may name several.
fn relates(parameters: &str, relation: &str) -> bool {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, next) = divided(rest, ';');
        rest = next;
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.trim().eq_ignore_ascii_case("rel") {
            let named = value.trim().trim_matches('"');
            return named.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(relation));
        }
    }
    false
}

/// What is before and after the first of these marks that stands in no quotes.
fn divided(text: &str, mark: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let divides = |c: char| {
        let plain = !escaped;
        escaped = plain && quoted && c == '\\';
        quoted ^= plain && c == '"';
        !quoted && c == mark
    };
    match text.find(divides) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_leads_where_its_link_says() {
        let github =
            "<https://api.example.com/x?page=2>; rel=\"next\", <https://api.example.com/x?page=9>; rel=\"last\"";
        for (value, relation, expected) in [
            (github, "next", Some("https://api.example.com/x?page=2")),
            (github, "last", Some("https://api.example.com/x?page=9")),
            (github, "prev", None),
            ("</a,b>; title=\"x, <y>; rel=next\"; REL=\"start Next\"", "next", Some("/a,b")),
            ("<a>; rel=prev; rel=next", "next", None),
            ("<a>;rel=next", "next", Some("a")),
            ("<a", "next", None),
            ("a; rel=next", "next", None),
            ("", "next", None),
        ] {
            assert_eq!(target(value, relation), expected, "{value}");
        }
    }
}
