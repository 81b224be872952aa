//! The request shape, compiled.

use super::address::{find_outside_slots, read_address};
use super::place::{Fault, Place};
use crate::base::path::normal;
use crate::definition::plan::api::PathPattern;
use crate::definition::plan::request::{Body, CredentialUse, Request, Target};
use crate::definition::problem::Code;
use crate::definition::raw::request::Shape;
use crate::definition::raw::scalar::{CredentialWord, Expression, Template};
use crate::template::{Expr, Segment, Text};

/// A segment that no percent-encoded path has: what an endpoint with an address of its own matches.
const NO_SEGMENT: &str = "\0";

/// Compiles a request. `place` is the block it stands in; the line itself is under `request`, or is the
/// block where it was written short.
pub(super) fn compile(shape: Shape<'_>, place: &Place<'_>) -> Result<Request, Fault> {
    let line = if place.document().value.pointer(place.pointer()).is_some_and(serde_json::Value::is_string) {
        place.clone()
    } else {
        place.at("request")
    };
    let (method, target) = target(shape.request, &line)?;
    let query = place.at("query").trees(shape.query)?;
    let save_at = place.at("save");
    let kept = |(name, value): (&str, &Expression)| Ok((name.to_owned(), save_at.at(name).expression(value)?));
    let save: Vec<(String, Expr)> = shape.save.iter().map(kept).collect::<Result<_, Fault>>()?;
    Ok(Request {
        method,
        target,
        query,
        headers: place.at("headers").headers(shape.headers)?,
        body: body(shape, place)?,
        basic: basic(shape, &place.at("basic"))?,
        credential: credential(shape.credential),
        ok: place.optional("ok", shape.ok)?,
        error: place.optional("error", shape.error)?,
        save,
        result: shape.result.map(|result| place.at("result").tree(result)).transpose()?,
        timeout: shape.timeout.map(|timeout| timeout.0),
    })
}

fn target(line: &Template, place: &Place<'_>) -> Result<(http::Method, Target), Fault> {
    let address = read_address(&line.0).map_err(|message| place.problem(Code::BadFormat, message))?;
    let whole = place.text_of(address.target)?;
    if whole.segments().is_none() {
        return Err(place.problem(Code::BadTemplate, "an address takes `{{ … }}` slots only, no `{% … %}` blocks"));
    }
    if !address.target.starts_with('/') {
        return Ok((address.method, Target::Url(whole)));
    }
    let target = match find_outside_slots(&whole, '?').and_then(|at| address.target.split_at_checked(at)) {
        None => Target::Path { path: whole, query: None },
        Some((path, query)) => {
            let query = query.strip_prefix('?').filter(|query| !query.is_empty());
            Target::Path { path: place.text_of(path)?, query: query.map(|query| place.text_of(query)).transpose()? }
        }
    };
    Ok((address.method, target))
}

fn body(shape: Shape<'_>, place: &Place<'_>) -> Result<Body, Fault> {
    match (shape.form, shape.json, shape.text) {
        (None, None, None) => Ok(Body::Empty),
        (Some(form), None, None) => place.at("form").trees(form).map(Body::Form),
        (None, Some(json), None) => place.at("json").tree(json).map(Body::Json),
        (None, None, Some(text)) => place.at("text").text(text).map(Body::Text),
        _ => Err(place.problem(Code::Conflict, "a request has one body: `form`, `json` or `text`")),
    }
}

fn basic(shape: Shape<'_>, place: &Place<'_>) -> Result<Option<(Text, Text)>, Fault> {
    let Some(pair) = shape.basic else { return Ok(None) };
    let password = match &pair.password {
        Some(password) => place.at("password").text(password)?,
        None => place.text_of("")?,
    };
    Ok(Some((place.at("username").text(&pair.username)?, password)))
}

fn credential(word: Option<&CredentialWord>) -> CredentialUse {
    match word.map(|word| word.0.as_str()) {
        None | Some("token") => CredentialUse::Token(None),
        Some("none") => CredentialUse::None,
        Some("client") => CredentialUse::Client,
        Some(named) => CredentialUse::Token(named.strip_prefix("token ").map(str::to_owned)),
    }
}

/// What of a request's address is known before its inputs are: a segment with a slot in it may be any.
pub(super) fn pattern(request: &Request) -> PathPattern {
    let segments = match &request.target {
        Target::Path { path, .. } => path_segments(path),
        Target::Url(_) => vec![Some(NO_SEGMENT.into())],
    };
    PathPattern { method: request.method.clone(), segments }
}

fn path_segments(path: &Text) -> Vec<Option<Box<str>>> {
    let mut segments: Vec<Option<String>> = vec![Some(String::new())];
    for part in path.segments().unwrap_or_default().iter() {
        match part {
            Segment::Slot(_) => {
                if let Some(last) = segments.last_mut() {
                    *last = None;
                }
            }
            Segment::Literal(text) => {
                for (index, piece) in text.split('/').enumerate() {
                    match segments.last_mut() {
                        Some(Some(last)) if index == 0 => last.push_str(piece),
                        _ if index == 0 => {}
                        _ => segments.push(Some(piece.to_owned())),
                    }
                }
            }
        }
    }
    // The path begins with a slash, so the first segment is the empty one before it.
    segments.into_iter().skip(1).map(|segment| segment.map(|literal| normal(&literal).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::document::Document;
    use crate::definition::raw::request::Request as Raw;
    use crate::definition::templates::Templates;
    use serde_json::{Value, json};

    fn compiled(value: Value) -> Result<Request, Fault> {
        let document = Document::unplaced("a.yaml".into(), value);
        let templates = Templates::new();
        let raw: Raw = crate::definition::raw::read(&document.value).expect("reads");
        compile(raw.shape(), &Place::root(&document, &templates))
    }

    #[test]
    fn paths_and_queries_are_parted() {
        let request = compiled(json!({ "request": "GET /a/{{ input.b }}?c={{ input.d }}" })).expect("compiles");
        let Target::Path { path, query } = &request.target else { panic!("a path") };
        assert_eq!(path.source(), "/a/{{ input.b }}");
        assert_eq!(query.as_ref().map(Text::source), Some("c={{ input.d }}"));
        let pattern = pattern(&request);
        assert!(pattern.matches(&http::Method::GET, "/a/x") && !pattern.matches(&http::Method::GET, "/a/x/y"));
    }

    #[test]
    fn segments_with_a_slot_anywhere_may_be_any() {
        let request = compiled(json!({ "request": "GET /v1/x-{{ input.a }}.json/{{ input.b }}" })).expect("compiles");
        let segments = pattern(&request).segments;
        assert_eq!(segments, [Some("v1".into()), None, None]);
    }

    #[test]
    fn an_address_of_its_own_matches_nothing_that_passes_through() {
        let request = compiled(json!({ "request": "GET https://other.example/x" })).expect("compiles");
        assert!(!pattern(&request).matches(&http::Method::GET, "/x"));
    }

    #[test]
    fn a_request_has_one_body_and_no_blocks_in_its_address() {
        assert!(compiled(json!({ "request": "POST /a", "json": {}, "text": "x" })).is_err());
        assert!(compiled(json!({ "request": "GET /{% if a %}b{% endif %}" })).is_err());
        assert!(matches!(compiled(json!({ "request": "POST /a", "json": null })).map(|r| r.body), Ok(Body::Json(_))));
    }

    #[test]
    fn credential_words_are_typed() {
        let word = |word: &str| credential(Some(&CredentialWord(word.to_owned())));
        assert_eq!(word("token user"), CredentialUse::Token(Some("user".to_owned())));
        assert_eq!([word("client"), word("none")], [CredentialUse::Client, CredentialUse::None]);
    }
}
