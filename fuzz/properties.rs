//! What must hold for any bytes. The fuzz targets look for bytes that break one of these; `tests/it/corpora.rs`
//! replays what they found, and what they begin with, in every `make test`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use trunkline::base::clock::Timestamp;
use trunkline::base::id::EventId;
use trunkline::base::path;
use trunkline::base::units::{parse_duration, parse_size};
use trunkline::connection::flow::Secrets;
use trunkline::connection::flow::token_reply::{self, TOKEN_MOST, Tokens};
use trunkline::definition::load::bytes;
use trunkline::definition::plan::gateway::{Limits, Network};
use trunkline::definition::plan::moment::{Moment, MomentUnit};
use trunkline::definition::plan::oauth2::{ParamsIn, TokenCall, TokenMap};
use trunkline::definition::plan::request::{Body, CredentialUse, Request, Target};
use trunkline::definition::plan::webhook::{Prefix, SignatureEncoding, SignatureForm, SignaturePlace};
use trunkline::definition::resolve::{Kind, resolve};
use trunkline::net::Received;
use trunkline::outbound::cache::directives::Directives;
use trunkline::proxy::path as gate;
use trunkline::request::fill::{Place, fill};
use trunkline::request::{link, retry_after};
use trunkline::server::hygiene::{self, Upgrades};
use trunkline::server::{proxy_protocol, source};
use trunkline::store::journal::frame::{self, Read};
use trunkline::telemetry::trace::TraceContext;
use trunkline::template::payload::{Wanted, read};
use trunkline::template::{Context, Expr, Text, Tree};
use trunkline::webhook::verify::signature::{CANDIDATES, candidates};

/// What must hold for some bytes; it panics when it does not.
pub type Property = fn(&[u8]);

/// Every property by the name of its target.
pub const ALL: [(&str, Property); 12] = [
    ("head_check", head_check),
    ("journal_decode", journal_decode),
    ("path_normal", path_normal),
    ("request_fill", request_fill),
    ("template_compile", template_compile),
    ("token_reply", token_reply),
    ("trace_context", trace_context),
    ("values_read", values_read),
    ("webhook_body", webhook_body),
    ("webhook_signature", webhook_signature),
    ("yaml_read", yaml_read),
    ("source_read", source_read),
];

/// Any `traceparent` is read or not; one that is read names a trace and is written in a way that is read the same.
pub fn trace_context(bytes: &[u8]) {
    let Some(context) = TraceContext::parse(bytes) else { return };
    let written = context.header();
    assert!(written.len() == 55 && TraceContext::parse(written.as_bytes()) == Some(context));
}

/// Any head is let in or refused; one that was let in passes again as it goes on, framed the same.
pub fn head_check(bytes: &[u8]) {
    for upgrades in [Upgrades::None, Upgrades::WebSocket] {
        let Ok(checked) = hygiene::check(bytes, &Limits::default(), upgrades) else { continue };
        let mut onward = bytes.into();
        checked.apply(&mut onward);
        let again = hygiene::check(&onward, &Limits::default(), upgrades).expect("what goes on is sound");
        assert_eq!(again.framing, checked.framing);
    }
}

/// Any path has one normal form, which means what the path meant and is no shorter way past the gate: it passes where
/// the path does, and a lax server reads the same of both.
pub fn path_normal(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let normal = path::normal(path);
    assert_eq!(path::normal(&normal), normal);
    let octets = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    assert_eq!(octets(path), octets(&normal));
    assert_eq!(path::lax(path), path::lax(&normal));
    assert_eq!(gate::check_path(path), gate::check_path(&normal));
}

/// Any bytes before a connection are a header of the PROXY protocol or none, and nothing behind one is taken; any
/// text in a trusted proxy's headers names a client in its one form, or none; from elsewhere it names none.
pub fn source_read(bytes: &[u8]) {
    let mut rest = bytes;
    let read = {
        let mut reading = Box::pin(proxy_protocol::read(&mut rest));
        match reading.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(read) => read,
            Poll::Pending => panic!("all bytes are there"),
        }
    };
    if read.is_ok() {
        let taken = bytes.len() - rest.len();
        assert!(bytes[..taken].ends_with(b"\r\n") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    }
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let trusted = [Network { address: IpAddr::from([10, 0, 0, 0]), prefix: 8 }];
    for name in [header::FORWARDED, HeaderName::from_static("x-forwarded-for")] {
        let headers = HeaderMap::from_iter([(name, value.clone())]);
        assert_eq!(source::behind(Some(IpAddr::from([192, 0, 2, 1])), &headers, &trusted), None);
        let named = source::behind(Some(IpAddr::from([10, 0, 0, 1])), &headers, &trusted);
        assert!(named.is_none_or(|client| client == client.to_canonical()), "one address has one form");
    }
}

/// Any bytes are read as frames, what is taken for a frame is exactly one, and what was framed is found again.
pub fn journal_decode(bytes: &[u8]) {
    let mut framed = Vec::new();
    frame::encode(7, bytes, &mut framed);
    framed.extend_from_slice(bytes);
    let Read::Frame(found, _) = frame::decode(&framed) else { panic!("a frame does not read back") };
    assert_eq!((found.number, found.payload), (7, bytes));
    let mut rest = bytes;
    while let Read::Frame(read, taken) = frame::decode(rest) {
        let mut again = Vec::new();
        frame::encode(read.number, read.payload, &mut again);
        assert_eq!(again, rest[..taken]);
        rest = &rest[taken..];
    }
}

static REQUEST: LazyLock<Request> = LazyLock::new(|| {
    let text = |source: &str| Text::compile(source).expect("compiles");
    let tree = |value: Value| Tree::compile(&value, &mut |_, error| panic!("{error}"));
    Request {
        method: Method::POST,
        target: Target::Path { path: text("/a/{{ v }}/x-{{ v }}"), query: Some(text("f={{ v }}")) },
        query: vec![("q".to_owned(), tree(json!("{{ v }}"))), ("z".to_owned(), tree(json!("1")))],
        headers: vec![(header::ACCEPT, text("{{ v }}"))],
        body: Body::Json(tree(json!({ "k": "{{ v }}" }))),
        basic: None,
        credential: CredentialUse::None,
        ok: None,
        error: None,
        save: Vec::new(),
        result: None,
        timeout: None,
    }
});

/// Whatever a value is, it stays in its place: the call that is made of it has the structure that the
/// definition wrote.
pub fn request_fill(bytes: &[u8]) {
    let Ok(value) = std::str::from_utf8(bytes) else { return };
    let Ok(filled) = fill(&REQUEST, &Context::new().with("v", value)) else { return };
    let Place::Below(path) = &filled.place else { panic!("the place has become another") };
    let url = url::Url::parse(&format!("https://h.example{path}?{}", filled.query)).expect("a URL");
    assert_eq!(url.host_str(), Some("h.example"));
    assert_eq!(url.path(), path, "no other reading");
    let segments: Vec<_> = url.path_segments().expect("segments").collect();
    assert!(segments.len() == 3 && segments[0] == "a" && segments[2].starts_with("x-"));
    let pairs: Vec<_> = url.query_pairs().collect();
    assert_eq!(pairs, [("f".into(), value.into()), ("q".into(), value.into()), ("z".into(), "1".into())]);
    let accept = filled.headers[header::ACCEPT].as_bytes();
    assert!(!accept.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    assert_eq!(serde_json::from_slice::<Value>(&filled.body).expect("JSON"), json!({ "k": value }));
}

/// Any text compiles or is refused at a place within it, and what compiles ends in bounded time and size.
pub fn template_compile(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let context = Context::new().with_json("body", &json!({ "a": [1, "x", null], "b": { "c": true } }));
    match Text::compile(source) {
        Ok(text) => assert!(text.render(&context).map_or(0, |made| made.len()) <= trunkline::template::LIMITS.output),
        Err(error) => assert!(error.range.is_none_or(|range| source.get(range).is_some()), "{source:?}"),
    }
    match Expr::compile(source) {
        Ok(expression) => drop(expression.json(&context)),
        Err(error) => assert!(error.range.is_none_or(|range| source.get(range).is_some()), "{source:?}"),
    }
}

/// Ids, times, durations and sizes are refused or mean one thing.
pub fn values_read(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert(header::RETRY_AFTER, value);
        let wait = retry_after(&headers, Timestamp::from_seconds(1_800_000_000));
        assert!(wait.is_none() || bytes.iter().any(u8::is_ascii_digit), "{wait:?} out of nothing");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<EventId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time));
    }
    drop((parse_duration(text), parse_size(text)));
    if let Some(target) = link::target(text, "next") {
        assert!(text.contains(&format!("<{target}>")), "{target:?} is not in {text:?}");
    }
    if let Ok(value) = HeaderValue::from_str(text) {
        let said = Directives::of_answer(&HeaderMap::from_iter([(header::CACHE_CONTROL, value)]));
        assert!(!said.no_store || text.to_ascii_lowercase().contains("no-store"), "{text:?}");
    }
}

/// Any body is read or refused, and what is wanted of it is found again in the whole.
pub fn webhook_body(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let media = ["application/json", "application/x-www-form-urlencoded", "text/plain"];
    let media = media.get(usize::from(choice & 3)).copied();
    let wanted = Wanted::of(["type", "data.object.id"]);
    if let (Ok(part), Ok(all)) = (read(media, body, &wanted), read(media, body, &Wanted::all())) {
        let [part, all] = [part, all].map(|value| serde_json::to_value(value).ok());
        let field = |value: &Option<Value>| value.as_ref().and_then(|value| value.get("type").cloned());
        assert_eq!(field(&part), field(&all));
    }
}

/// Any header is taken apart into at most ten digests of the asked length.
pub fn webhook_signature(bytes: &[u8]) {
    let Some((choice, value)) = bytes.split_first() else { return };
    let form = match choice & 3 {
        0 => SignatureForm::Single,
        1 => SignatureForm::List { separator: ' ' },
        2 => SignatureForm::Pairs { name: "v1".to_owned(), separator: ',' },
        _ => SignatureForm::Position { index: 1, separator: ';' },
    };
    let encoding = match choice >> 2 & 3 {
        0 => SignatureEncoding::Hex { upper: false },
        1 => SignatureEncoding::Hex { upper: true },
        2 => SignatureEncoding::Base64,
        _ => SignatureEncoding::Base64Url,
    };
    let prefix = (choice & 16 > 0).then(|| Prefix { text: "v1,".to_owned(), optional: choice & 32 > 0 });
    let place = SignaturePlace { header: http::HeaderName::from_static("x-signature"), form, prefix, encoding };
    let found = candidates(&place, value, 32).unwrap_or_default();
    assert!(found.len() <= CANDIDATES && found.iter().all(|digest| digest.len() == 32));
}

/// Any bytes are read as a definition or refused, with a reason.
pub fn yaml_read(bytes: &[u8]) {
    let file = Arc::new(PathBuf::from("fuzz.yaml"));
    let Ok(text) = bytes::text(&file, bytes) else { return };
    let environment = HashMap::from([("A".to_owned(), "{{ a }} ${env:A}".to_owned())]);
    for kind in [Kind::Integration, Kind::Gateway] {
        let resolved = resolve(kind, &file, &text, &environment);
        assert!(resolved.document.is_some() || !resolved.problems.is_empty());
    }
}

static TOKEN_CALL: LazyLock<TokenCall> = LazyLock::new(|| {
    let expr = |source: &str| Expr::compile(source).expect("compiles");
    let map = |place: &str, unit| TokenMap {
        access: expr(&format!("{place}.access_token")),
        refresh: Some(expr(&format!("{place}.refresh_token"))),
        expires_in: Some(expr(&format!("{place}.expires_in"))),
        expires: Some(Moment { value: expr(&format!("{place}.expires")), unit }),
        scope: Some(expr(&format!("{place}.scope"))),
    };
    let request = Request {
        error: Some(expr("body.error_description")),
        save: vec![("team".to_owned(), expr("body.team.id"))],
        ..Request::bare(Method::POST, Target::Url(Text::compile("https://a.example/token").expect("compiles")))
    };
    let tokens = vec![
        ("default".to_owned(), map("body", MomentUnit::JwtExp)),
        ("user".to_owned(), map("body.user", MomentUnit::Rfc3339)),
    ];
    let (rename, omit) = (Vec::new(), Vec::new());
    TokenCall {
        request,
        params_in: ParamsIn::Form,
        rename,
        omit,
        tokens,
        mapped: true,
        permanent: None,
        default_ttl: None,
    }
});

/// Any answer to a token call is read or refused, and every token that is taken can be sent and lasts. The
/// first byte says how it is declared and what is wanted of it, the second its status.
pub fn token_reply(bytes: &[u8]) {
    let Some((&[kind, status], body)) = bytes.split_first_chunk() else { return };
    let now = Timestamp::from_seconds(1_700_000_000);
    let kinds = ["application/json", "application/x-www-form-urlencoded", "text/html", "application/jose+json"];
    let declared = HeaderValue::from_static(kinds[usize::from(kind) % kinds.len()]);
    let received = Received {
        status: StatusCode::from_u16(200 + u16::from(status) * 2 % 400).expect("a status"),
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, declared)]),
        body: body.to_vec().into(),
        framed: true,
        led: false,
    };
    let tokens = if kind & 0x80 == 0 { Tokens::Issued } else { Tokens::Renewed("user") };
    let wanted = token_reply::Wanted { tokens, separator: " ", now };
    let seen = (&Context::new(), &Secrets::default());
    let Ok(reply) = token_reply::read(&TOKEN_CALL, seen, received, wanted) else { return };
    assert!(!reply.tokens.is_empty());
    for token in reply.tokens.values() {
        let text = token.access.expose();
        assert!(!text.is_empty() && text.len() <= TOKEN_MOST && !text.chars().any(char::is_control));
        assert!(token.expires_at.is_none_or(|at| at > now));
    }
}
