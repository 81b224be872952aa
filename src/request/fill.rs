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

/// Method and place: the rest may hold secrets.
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

/// Headers that say where a message ends or whose connection it is on: never a definition's.
pub const OWN_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT_ENCODING,
];

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
    if OWN_HEADERS.contains(name) {
        return Err(Fault::OwnHeader);
    }
    if let Some(slot) = text.lone_slot()
        && slot.value(context)?.is_none()
    {
        return Ok(None);
    }
    HeaderValue::from_str(text.render(context)?.trim()).map(Some).map_err(|_| Fault::Header)
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
