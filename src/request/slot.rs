//! Values in their places: each place has an encoder, so that no value brings structure of its own.

use std::cell::Cell;

use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use url::form_urlencoded;

use super::fill::Fault;
use crate::net::origin::SEGMENT;
use crate::template::{Context, Expr, Segment, Text, Tree};

/// A path: each slot is one segment or a part of one, all but unreserved characters encoded.
pub(super) fn path(text: &Text, context: &Context) -> Result<String, Fault> {
    no_blocks(text)?;
    let empty = Cell::new(false);
    let path = text.render_encoded(context, |value, out| {
        empty.set(empty.get() || value.is_empty());
        out.extend(utf8_percent_encode(value, SEGMENT));
    })?;
    if empty.get() { Err(Fault::EmptySegment) } else { no_dots(path) }
}

/// A query string: each slot is a value or a part of one.
pub(super) fn query(text: &Text, context: &Context) -> Result<String, Fault> {
    no_blocks(text)?;
    Ok(text.render_encoded(context, |value, out| out.extend(utf8_percent_encode(value, SEGMENT)))?)
}

/// A whole URL as origin, path and query. A lone slot is the whole, and a slot that begins the URL is its
/// scheme and host; otherwise slots in the host take letters, digits, dots and hyphens, and those behind it
/// are encoded for their place.
pub(super) fn url(text: &Text, context: &Context) -> Result<Url, Fault> {
    let segments = text.segments().ok_or(Fault::Blocks)?;
    if let [Segment::Slot(_)] = &*segments {
        return split(&text.render(context)?, false);
    }
    let (mut url, mut literal_host) = (String::new(), true);
    let mut rest = &*segments;
    if let [Segment::Slot(origin), Segment::Literal(path), ..] = rest
        && path.starts_with('/')
    {
        (url, literal_host, rest) = (origin_of(origin, context)?, false, rest.get(1..).unwrap_or_default());
    }
    for segment in rest {
        let expr = match segment {
            Segment::Literal(literal) => {
                url.push_str(literal);
                continue;
            }
            Segment::Slot(expr) => expr,
        };
        let value = expr.text(context)?.ok_or(Fault::EmptySegment)?;
        if url.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?'])) {
            url.extend(utf8_percent_encode(&value, SEGMENT));
            continue;
        }
        literal_host = false;
        if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.') {
            return Err(Fault::Host);
        }
        url.push_str(&value);
    }
    split(&url, literal_host)
}

/// What stands before the path: `SCHEME://HOST`, and nothing that would bring more of a URL with it.
fn origin_of(expr: &Expr, context: &Context) -> Result<String, Fault> {
    let value = expr.text(context)?.ok_or(Fault::EmptySegment)?;
    let origin = value.strip_suffix('/').unwrap_or(&value);
    let is_origin = origin.split_once("://").is_some_and(|(_, host)| !host.contains(['/', '?', '#', '@', '\\']));
    if is_origin { Ok(origin.to_owned()) } else { Err(Fault::Url) }
}

/// A URL taken apart at the places where its parts meet.
pub(super) struct Url {
    pub origin: String,
    pub literal_host: bool,
    pub path: String,
    pub query: Option<String>,
}

fn split(url: &str, literal_host: bool) -> Result<Url, Fault> {
    let (rest, query) = url.split_once('?').map_or((url, None), |(rest, query)| (rest, Some(query.to_owned())));
    let (scheme, rest) = rest.split_once("://").ok_or(Fault::Url)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let origin = format!("{scheme}://{authority}");
    Ok(Url { origin, literal_host, path: no_dots(path.to_owned())?, query })
}

/// Refuses what a server may read as a step upwards: dot segments, written out or encoded, also between slashes that
/// are encoded themselves (nginx decodes those before it resolves the path) and before parameters (`..;x`).
fn no_dots(path: String) -> Result<String, Fault> {
    let is_step = |part: &[u8]| matches!(part.split(|byte| *byte == b';').next(), Some(b"." | b".."));
    let dots = |segment: &str| {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
        decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(is_step)
    };
    if path.split('/').any(dots) { Err(Fault::Dots) } else { Ok(path) }
}

fn no_blocks(text: &Text) -> Result<(), Fault> {
    if text.segments().is_some() { Ok(()) } else { Err(Fault::Blocks) }
}

/// The texts that a parameter stands for: none for null, one for each item of a list.
pub(super) fn texts(tree: &Tree, context: &Context) -> Result<Vec<String>, Fault> {
    match tree.render(context)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.into_iter().map(text_of).collect(),
        one => text_of(one).map(|text| vec![text]),
    }
}

fn text_of(value: Value) -> Result<String, Fault> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Fault::NotText),
    }
}

/// Adds `name=value` to a query string.
pub(super) fn add_query(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.extend(utf8_percent_encode(name, SEGMENT));
    query.push('=');
    query.extend(utf8_percent_encode(value, SEGMENT));
}

/// An `application/x-www-form-urlencoded` body.
pub(super) fn form(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
