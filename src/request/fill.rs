//! A request with the values of one use filled in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::slot;
use crate::base::secret::Secret;
use crate::definition::plan::request::{Body, Request, Target};
use crate::net::{Base, BaseError, Origin};
use crate::respond::Refusal;
use crate::template::{Context, TemplateError, TemplateErrorKind, Text};

/// A concrete call, without what the API and the connection add to it.
#[derive(Clone)]
pub struct Filled {
    /// The method.
    pub method: Method,
    /// Where to.
    pub place: Place,
    /// The query string without the question mark; may be empty.
    pub query: String,
    /// The headers, `Content-Type` and the request's own `Authorization: Basic` among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To this path below the API's base.
    Below(String),
    /// To this path at an origin of its own, which has yet to be checked.
    At {
        /// The origin.
        origin: Origin,
        /// Whether the definition itself writes out the host.
        literal_host: bool,
        /// The path.
        path: String,
    },
}

/// Method and shape: the rest may hold secrets.
impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filled({} {:?}, {} bytes)", self.method, self.place, self.body.len())
    }
}

/// Why a request could not be filled in. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {fault}")]
pub struct FillError {
    /// The field of the request, as in `query.page`.
    pub field: String,
    /// What is wrong.
    pub fault: Fault,
    /// Whether the field reads the caller's input, so that the caller may be the one to mend it.
    pub reads_input: bool,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The template gave no value.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template has blocks, in a place that is encoded slot by slot.
    #[error("a template with `{{% … %}}` cannot stand here")]
    Blocks,
    /// A part of a path is empty, which would address something else.
    #[error("a value in the path is empty")]
    EmptySegment,
    /// A part of a path is a dot segment.
    #[error("a part of the path is `.` or `..`")]
    Dots,
    /// A value does not fit into a host name.
    #[error("a value in the host has characters that host names do not have")]
    Host,
    /// The text is not a URL.
    #[error("the URL is not `https://HOST/PATH?QUERY`")]
    Url,
    /// The value is a map, or a list of maps or lists.
    #[error("the value is not a text, a number, true, false, null, or a list of these")]
    NotText,
    /// The value cannot stand in a header.
    #[error("the value has characters that no header can carry, such as a line break")]
    Header,
    /// The header belongs to the connection, not to the definition.
    #[error("this header is set by the gateway alone")]
    OwnHeader,
    /// A Basic name has a colon.
    #[error("the name has a colon, which separates name and password")]
    Colon,
}

impl FillError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        let of_value = match &self.fault {
            Fault::Template(error) => matches!(error.kind, TemplateErrorKind::Missing | TemplateErrorKind::WrongType),
            Fault::EmptySegment | Fault::Dots | Fault::Host | Fault::Url | Fault::NotText | Fault::Header => true,
            Fault::Blocks | Fault::OwnHeader | Fault::Colon => false,
        };
        if of_value && self.reads_input { Refusal::InvalidInput } else { Refusal::DefinitionFailed }
    }
}

/// Headers that say where a message ends or whose connection it is on: written by whoever sends it.
pub const FRAMING: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];

/// Whether a header is never a definition's.
fn is_own(name: &HeaderName) -> bool {
    FRAMING.contains(name) || *name == header::ACCEPT_ENCODING
}

/// Fills in a request. `context` has the values that its templates see.
///
/// # Errors
/// The first field that gave no usable value.
pub fn fill(request: &Request, context: &Context) -> Result<Filled, FillError> {
    let (place, mut query) = fill_target(&request.target, context)?;
    for (name, tree) in &request.query {
        let texts = slot::texts(tree, context).map_err(at(|| format!("query.{name}"), || tree.names()))?;
        for text in &texts {
            slot::add_query(&mut query, name, text);
        }
    }
    let mut headers = fill_headers(&request.headers, context)?;
    let body = fill_body(&request.body, context, &mut headers)?;
    if let Some((username, password)) = &request.basic {
        headers.insert(header::AUTHORIZATION, basic(username, password, context)?);
    }
    Ok(Filled { method: request.method.clone(), place, query, headers, body })
}

fn fill_target(target: &Target, context: &Context) -> Result<(Place, String), FillError> {
    let field = || "request".to_owned();
    match target {
        Target::Path { path, query } => {
            let place = Place::Below(slot::path(path, context).map_err(at(field, || path.names()))?);
            let query = query.as_ref().map(|text| slot::query(text, context).map_err(at(field, || text.names())));
            Ok((place, query.transpose()?.unwrap_or_default()))
        }
        Target::Url(text) => {
            let url = slot::url(text, context).map_err(at(field, || text.names()))?;
            let base = Base::parse(&url.origin, url.literal_host)
                .map_err(|_: BaseError| Fault::Url)
                .map_err(at(field, || text.names()))?;
            let place = Place::At { origin: base.origin, literal_host: url.literal_host, path: url.path };
            Ok((place, url.query.unwrap_or_default()))
        }
    }
}

/// Headers filled in, those whose value is none left out.
///
/// # Errors
/// The first that gave no usable value.
pub fn fill_headers(templates: &[(HeaderName, Text)], context: &Context) -> Result<HeaderMap, FillError> {
    let mut headers = HeaderMap::with_capacity(templates.len() + 2);
    for (name, text) in templates {
        let value = header_value(name, text, context).map_err(at(|| format!("headers.{name}"), || text.names()))?;
        if let Some(value) = value {
            headers.append(name.clone(), value);
        }
    }
    Ok(headers)
}

fn header_value(name: &HeaderName, text: &Text, context: &Context) -> Result<Option<HeaderValue>, Fault> {
    if is_own(name) {
        return Err(Fault::OwnHeader);
    }
    if let Some(slot) = text.lone_slot()
        && slot.value(context)?.is_none()
    {
        return Ok(None);
    }
    HeaderValue::from_str(text.render(context)?.trim_matches([' ', '\t'])).map(Some).map_err(|_| Fault::Header)
}

fn fill_body(body: &Body, context: &Context, headers: &mut HeaderMap) -> Result<Bytes, FillError> {
    let (content_type, bytes) = match body {
        Body::Empty => return Ok(Bytes::new()),
        Body::Form(fields) => {
            let mut pairs = Vec::with_capacity(fields.len());
            for (name, tree) in fields {
                let texts = slot::texts(tree, context).map_err(at(|| format!("form.{name}"), || tree.names()))?;
                pairs.extend(texts.into_iter().map(|text| (name.clone(), text)));
            }
            ("application/x-www-form-urlencoded", slot::form(&pairs).into_bytes())
        }
        Body::Json(tree) => {
            let value = tree.render(context).map_err(Fault::from).map_err(at(|| "json".to_owned(), || tree.names()))?;
            ("application/json", value.to_string().into_bytes())
        }
        Body::Text(text) => {
            let value = text.render(context).map_err(Fault::from).map_err(at(|| "text".to_owned(), || text.names()))?;
            ("text/plain; charset=utf-8", value.into_bytes())
        }
    };
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    Ok(Bytes::from(bytes))
}

fn basic(username: &Text, password: &Text, context: &Context) -> Result<HeaderValue, FillError> {
    let render = |text: &Text| {
        let rendered = text.render(context).map(Secret::new).map_err(Fault::from);
        rendered.map_err(at(|| "basic".to_owned(), || text.names()))
    };
    let (username_text, password) = (render(username)?, render(password)?);
    if username_text.expose().contains(':') {
        return Err(at(|| "basic".to_owned(), || username.names())(Fault::Colon));
    }
    let pair = Secret::new(format!("{}:{}", username_text.expose(), password.expose()));
    let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    let mut value = HeaderValue::from_str(value.expose())
        .map_err(|_| Fault::Header)
        .map_err(at(|| "basic".to_owned(), || username.names()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What turns a fault into an error that names its field.
fn at(
    field: impl Fn() -> String,
    names: impl Fn() -> std::collections::BTreeSet<String>,
) -> impl Fn(Fault) -> FillError {
    move |fault| {
        let reads_input = names().iter().any(|name| name == "input" || name.starts_with("input."));
        FillError { field: field(), fault, reads_input }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Tree;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn text(source: &str) -> Text {
        Text::compile(source).expect("compiles")
    }

    fn tree(value: &Value) -> Tree {
        Tree::compile(value, &mut |_, error| panic!("{error}"))
    }

    fn request(path: &str) -> Request {
        Request::bare(Method::POST, Target::Path { path: text(path), query: None })
    }

    fn context(value: &Value) -> Context {
        Context::new().with_json("input", &json!({ "v": value }))
    }

    fn path_of(path: &str, value: &str) -> Result<String, Fault> {
        match fill(&request(path), &context(&json!(value))).map_err(|error| error.fault)?.place {
            Place::Below(path) | Place::At { path, .. } => Ok(path),
        }
    }

    #[test]
    fn a_value_is_one_segment_of_the_path() {
        assert_eq!(path_of("/a/{{ input.v }}/b", "x/..y?z#é ").as_deref(), Ok("/a/x%2F..y%3Fz%23%C3%A9%20/b"));
        assert_eq!(path_of("/a/{{ input.v }}.json", "..").as_deref(), Ok("/a/...json"));
        assert_eq!(path_of("/a/{{ input.v }}", "%2e%2e").as_deref(), Ok("/a/%252e%252e"));
        for (path, value, fault) in [
            ("/a/{{ input.v }}/b", "..", Fault::Dots),
            ("/a/{{ input.v }}", ".", Fault::Dots),
            ("/a/{{ input.v }}", "../admin", Fault::Dots),
            ("/a/{{ input.v }}", "x/../../admin", Fault::Dots),
            ("/a/{{ input.v }}", "..\\admin", Fault::Dots),
            ("/a/{{ input.v }}", "..;x/admin", Fault::Dots),
            ("/a/{{ input.v }}{{ input.v }}", ".", Fault::Dots),
            ("/a/.{{ input.v }}/b", ".", Fault::Dots),
            ("/a/{{ input.v }}/b", "", Fault::EmptySegment),
        ] {
            assert_eq!(path_of(path, value), Err(fault), "{path} {value}");
        }
    }

    #[test]
    fn parameters_that_are_none_are_left_out_and_lists_repeat() {
        let mut request = request("/x");
        request.query = ["{{ input.v.a }}", "{{ input.v.none }}", "{{ input.v.list }}", "{{ input.v.yes }}"]
            .map(|slot| ("p q".to_owned(), tree(&json!(slot))))
            .to_vec();
        request.body = Body::Form(request.query.clone());
        let value = json!({ "a": "1&2=3 +é", "none": null, "list": [1, "b"], "yes": true });
        let filled = fill(&request, &context(&value)).expect("filled");
        assert_eq!(filled.query, "p%20q=1%262%3D3%20%2B%C3%A9&p%20q=1&p%20q=b&p%20q=true");
        assert_eq!(filled.body, "p+q=1%262%3D3+%2B%C3%A9&p+q=1&p+q=b&p+q=true");
        assert_eq!(filled.headers[header::CONTENT_TYPE], "application/x-www-form-urlencoded");
    }

    #[test]
    fn a_whole_url_keeps_values_in_their_place() {
        let place = |url: &str, value: &str| {
            let request = Request { target: Target::Url(text(url)), ..request("/") };
            let filled = fill(&request, &context(&json!(value))).map_err(|error| error.fault)?;
            let Place::At { origin, literal_host, path } = filled.place else { panic!("a whole URL") };
            Ok((format!("{origin}{path}?{}", filled.query), literal_host))
        };
        let ok = |url: &str, literal| Ok((url.to_owned(), literal));
        assert_eq!(
            place("https://a.example/{{ input.v }}?q={{ input.v }}", "x/&?"),
            ok("https://a.example/x%2F%26%3F?q=x%2F%26%3F", true)
        );
        assert_eq!(place("https://{{ input.v }}.example/p", "a-1"), ok("https://a-1.example/p?", false));
        assert_eq!(place("{{ input.v }}", "https://b.example/n?c=1"), ok("https://b.example/n?c=1", false));
        assert_eq!(place("{{ input.v }}/p", "https://b.example"), ok("https://b.example/p?", false));
        assert_eq!(place("{{ input.v }}/p", "https://b.example/"), ok("https://b.example/p?", false));
        for value in ["b.example", "https://b.example/x", "https://u@b.example", "https://b.example?q", "https://b#"] {
            assert_eq!(place("{{ input.v }}/p", value), Err(Fault::Url), "{value}");
        }
        for value in ["evil.example/", "a@b", "a:1", "a#", "a?", "a\\b"] {
            assert_eq!(place("https://{{ input.v }}.example/p", value), Err(Fault::Host), "{value}");
        }
        for value in ["ftp://a/", "https://u@a/", "//a/", "https://a/../b", "/x"] {
            assert!(place("{{ input.v }}", value).is_err(), "{value}");
        }
    }

    #[test]
    fn headers_take_nothing_that_ends_a_line_and_none_of_the_connections_own() {
        let with = |name: HeaderName, value: &Value| {
            let request = Request { headers: vec![(name, text("{{ input.v }}"))], ..request("/") };
            fill(&request, &context(value)).map(|filled| filled.headers).map_err(|error| error.fault)
        };
        assert!(with(header::ACCEPT, &json!(null)).expect("left out").is_empty());
        assert_eq!(with(header::ACCEPT, &json!("a b")).expect("filled")[header::ACCEPT], "a b");
        for value in ["a\r\nX: y", "a\nb", "a\0b", "\u{7f}", "é\n"] {
            assert_eq!(with(header::ACCEPT, &json!(value)).err(), Some(Fault::Header), "{value:?}");
        }
        for name in FRAMING.into_iter().chain([header::ACCEPT_ENCODING]) {
            assert_eq!(with(name.clone(), &json!("x")).err(), Some(Fault::OwnHeader), "{name}");
        }
    }

    #[test]
    fn basic_is_raw_and_its_value_is_never_printed() {
        let basic = |name: &str| {
            let request = Request { basic: Some((text(name), text("p:+/%"))), ..request("/") };
            fill(&request, &Context::new()).map_err(|error| error.fault)
        };
        let filled = basic("u+&").expect("filled");
        assert_eq!(filled.headers[header::AUTHORIZATION], format!("Basic {}", STANDARD.encode("u+&:p:+/%")));
        assert!(!format!("{filled:?} {:?}", filled.headers).contains("Basic"));
        assert_eq!(basic("u:x").err(), Some(Fault::Colon));
    }

    #[test]
    fn a_missing_input_is_the_callers_fault_and_a_missing_saved_value_is_not() {
        let refusal = |source: &str| fill(&request(source), &context(&json!(1))).map_err(|error| error.refusal()).err();
        assert_eq!(refusal("/{{ input.gone }}"), Some(Refusal::InvalidInput));
        assert_eq!(refusal("/{{ saved.gone }}"), Some(Refusal::DefinitionFailed));
    }

    proptest! {
        #[test]
        fn whatever_the_value_the_call_keeps_its_structure(value in any::<String>()) {
            let mut request = request("/a/{{ input.v }}/b");
            request.query = vec![("q".to_owned(), tree(&json!("{{ input.v }}"))), ("z".to_owned(), tree(&json!("1")))];
            request.body = Body::Json(tree(&json!({ "k": "{{ input.v }}", "text": "<{{ input.v }}>" })));
            let is_step = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
            match fill(&request, &context(&json!(value))) {
                Err(error) => prop_assert!(value.is_empty() || value.split(['/', '\\']).any(is_step), "{}", error),
                Ok(filled) => {
                    let Place::Below(path) = &filled.place else { panic!("a path") };
                    let url = url::Url::parse(&format!("https://h.example{path}?{}", filled.query)).expect("a URL");
                    let segments: Vec<_> = url.path_segments().expect("segments").collect();
                    prop_assert_eq!((segments.len(), segments[0], segments[2]), (3, "a", "b"));
                    let pairs: Vec<_> = url.query_pairs().collect();
                    prop_assert_eq!(pairs, [("q".into(), value.as_str().into()), ("z".into(), "1".into())]);
                    let body: Value = serde_json::from_slice(&filled.body).expect("JSON");
                    prop_assert_eq!(body, json!({ "k": value, "text": format!("<{value}>") }));
                }
            }
        }

        #[test]
        fn a_form_reads_back_as_it_was_meant(value in any::<String>()) {
            let mut request = request("/");
            request.body = Body::Form(vec![("a".to_owned(), tree(&json!("{{ input.v }}"))), ("b".to_owned(), tree(&json!("2")))]);
            let filled = fill(&request, &context(&json!(value))).expect("any text fits a form");
            let pairs: Vec<_> = url::form_urlencoded::parse(&filled.body).collect();
            prop_assert_eq!(pairs, [("a".into(), value.as_str().into()), ("b".into(), "2".into())]);
        }

        #[test]
        fn a_header_is_one_line_or_none(value in any::<String>()) {
            let request = Request { headers: vec![(header::ACCEPT, text("{{ input.v }}"))], ..request("/") };
            if let Ok(filled) = fill(&request, &context(&json!(value))) {
                let sent = filled.headers[header::ACCEPT].as_bytes();
                prop_assert!(!sent.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'));
            }
        }
    }
}
