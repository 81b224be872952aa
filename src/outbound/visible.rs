//! Which headers of a service's answer are for whoever asked, and what of them.
//!
//! Called by the proxy door for what passes, and by the cache for what is kept.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::base::redact::Spellings;

/// Whether a header of an answer is not for the caller: cookies (a caller is not the account's browser), offers
/// of other routes to the service, what belongs to one connection, and names that only the gateway may use.
/// `Connection` and the framing are not among them: they are for whoever writes the answer.
pub fn is_not_for_the_caller(name: &HeaderName) -> bool {
    matches!(*name, header::SET_COOKIE | header::ALT_SVC | header::STRICT_TRANSPORT_SECURITY | header::TRAILER)
        || matches!(name.as_str(), "set-cookie2" | "keep-alive" | "alt-used")
        || name.as_str().starts_with("trunkline-")
        || name.as_str().starts_with("proxy-")
}

/// Whether a pair of a query is a parameter of this name, however it is encoded; also with a bracket behind the
/// name, as some servers read them.
pub fn is_parameter(pair: &str, name: &str) -> bool {
    let written = pair.split(['=', '[']).next().unwrap_or_default().replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&written).decode_utf8_lossy();
    decoded.trim().trim_matches('\0').split('[').next().is_some_and(|found| found.eq_ignore_ascii_case(name))
}

/// The headers whose values have a parameter of this name in an address, or a secret in one of its
/// spellings, each with the values that may pass: addresses without the parameter, and of the rest those
/// without the secret.
pub fn withheld(headers: &HeaderMap, parameter: &str, secret: &Spellings) -> Vec<(HeaderName, Vec<HeaderValue>)> {
    let changed = headers.keys().filter_map(|name| {
        let values = headers.get_all(name);
        let passes = |value: &HeaderValue| passing(name, value, (parameter, secret));
        let passing: Vec<_> = values.iter().filter_map(passes).collect();
        (!passing.iter().eq(values.iter())).then(|| (name.clone(), passing))
    });
    changed.collect()
}

fn passing(name: &HeaderName, value: &HeaderValue, (parameter, secret): (&str, &Spellings)) -> Option<HeaderValue> {
    let has_address = matches!(*name, header::LOCATION | header::CONTENT_LOCATION | header::LINK | header::REFRESH);
    let text = String::from_utf8_lossy(value.as_bytes());
    let clean = has_address.then(|| without(&text, parameter)).filter(|clean| *clean != text);
    if secret.are_in(clean.as_deref().unwrap_or(&text)) {
        return None;
    }
    clean.map_or_else(|| Some(value.clone()), |clean| HeaderValue::try_from(clean).ok())
}

/// A header's value without parameters of this name in its addresses. An address ends at what no address has.
fn without(value: &str, parameter: &str) -> String {
    let ends = |c: char| matches!(c, '<' | '>' | '"' | '\'' | ' ' | '\t');
    value.split_inclusive(ends).map(|part| without_parameter(part, parameter)).collect()
}

/// The same for one address, with whatever ended it. Fragments have parameters as well.
fn without_parameter(address: &str, parameter: &str) -> String {
    let end = address.find(['<', '>', '"', '\'', ' ', '\t']).unwrap_or(address.len());
    let (address, rest) = address.split_at(end);
    let (before, fragment) = address.find('#').map_or((address, ""), |at| address.split_at(at));
    let (path, query) = before.find('?').map_or((before, ""), |at| before.split_at(at));
    format!("{path}{}{}{rest}", pairs_without(query, parameter), pairs_without(fragment, parameter))
}

/// Pairs behind their `?` or `#`, without those of this name.
fn pairs_without(pairs: &str, parameter: &str) -> String {
    let Some((mark, list)) = pairs.split_at_checked(1) else { return String::new() };
    if !list.split(['&', ';']).any(|pair| is_parameter(pair, parameter)) {
        return pairs.to_owned();
    }
    let mut kept = String::new();
    for pair in list.split_inclusive(['&', ';']) {
        if !is_parameter(pair.trim_end_matches(['&', ';']), parameter) {
            kept.push_str(pair);
        }
    }
    let kept = kept.trim_end_matches(['&', ';']);
    if kept.is_empty() { String::new() } else { format!("{mark}{kept}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(name: &'static str, value: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().expect("a value"))]);
        let mut changed = withheld(&headers, "key", &Spellings::of("s3cr+t/x"));
        let values = changed.pop().map_or_else(|| vec![headers[name].clone()], |(_, values)| values);
        values.first().map(|value| value.to_str().expect("visible").to_owned())
    }

    #[test]
    fn addresses_pass_without_the_parameter_in_any_spelling() {
        for (name, value, passing) in [
            ("location", "https://a.example/x?key=s3cr%2Bt%2Fx&b=1#f", "https://a.example/x?b=1#f"),
            ("location", "/x?a=1&%6bey=s3cr%2bt/x", "/x?a=1"),
            ("location", "/x?KEY=other", "/x"),
            ("location", "/x?a=1;key[]=2;b=3", "/x?a=1;b=3"),
            ("location", "/x#key=s3cr+t/x&a=1", "/x#a=1"),
            ("location", "/x?monkey=1&keys=2", "/x?monkey=1&keys=2"),
            ("content-location", "/x?key=1", "/x"),
            ("refresh", "5; url=https://a.example/?key=1&b=2", "5; url=https://a.example/?b=2"),
            (
                "link",
                "<https://a.example/?page=2&key=1>; rel=\"next\", <?key=1>; rel=\"last\"",
                "<https://a.example/?page=2>; rel=\"next\", <>; rel=\"last\"",
            ),
            ("x-page", "https://a.example/?key=other", "https://a.example/?key=other"),
        ] {
            assert_eq!(passes(name, value).as_deref(), Some(passing), "{name}: {value}");
        }
    }

    #[test]
    fn what_still_holds_the_secret_does_not_pass() {
        for (name, value) in [
            ("location", "/login?back=%2Fx%3Fkey%3Ds3cr%2Bt%2Fx"),
            ("location", "/s3cr+t/x/there"),
            ("x-request-uri", "/a?key=s3cr%2bt%2fx"),
            ("x-echo", "s3cr+t/x"),
            ("x-echo", "czNjcit0L3g="),
        ] {
            assert_eq!(passes(name, value), None, "{name}: {value}");
        }
    }
}
