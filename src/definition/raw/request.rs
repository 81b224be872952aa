//! The one request shape, as written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::scalar::{DurationText, Expression, Ordered, Short, Template};

/// Declares a struct that has the fields of the request shape, and others of its own. They are
/// repeated rather than flattened because flattening gives up unknown-field errors.
macro_rules! request_shape {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Method and address: `GET /path` below the API's base URL, or `POST https://host/path`.
            pub request: $crate::definition::raw::scalar::Template,
            /// Query parameters. A value that is none leaves its parameter out; a list repeats it.
            #[serde(default, deserialize_with = "crate::definition::raw::scalar::ordered")]
            #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
            pub query: $crate::definition::raw::scalar::Ordered<serde_json::Value>,
            /// Headers.
            #[serde(default, deserialize_with = "crate::definition::raw::scalar::ordered")]
            #[schemars(with = "std::collections::BTreeMap<String, crate::definition::raw::scalar::Template>")]
            pub headers: $crate::definition::raw::scalar::Ordered<$crate::definition::raw::scalar::Template>,
            /// Body as `application/x-www-form-urlencoded`.
            #[serde(default)]
            #[schemars(with = "Option<std::collections::BTreeMap<String, serde_json::Value>>")]
            pub form: Option<serde_json::Map<String, serde_json::Value>>,
            /// Body as JSON: its texts are templates, its tree is not.
            #[serde(default)]
            pub json: Option<serde_json::Value>,
            /// Body as text.
            #[serde(default)]
            pub text: Option<$crate::definition::raw::scalar::Template>,
            /// Name and password for `Authorization: Basic`, instead of the connection's credential.
            #[serde(default)]
            pub basic: Option<$crate::definition::raw::request::BasicPair>,
            /// Which credential is added: `token` (default for calls to the API, identity, test and
            /// revoke), `client` (the OAuth client's id and secret), `none`, or `token NAME`.
            #[serde(default)]
            pub credential: Option<$crate::definition::raw::request::CredentialWord>,
            /// What makes an answer a success. Default: a 2xx status, and the API's own `ok`.
            #[serde(default)]
            pub ok: Option<$crate::definition::raw::scalar::Expression>,
            /// The service's words for what went wrong.
            #[serde(default)]
            pub error: Option<$crate::definition::raw::scalar::Expression>,
            /// Values to keep from the answer, seen later as `saved.NAME`.
            #[serde(default, deserialize_with = "crate::definition::raw::scalar::ordered")]
            #[schemars(with = "std::collections::BTreeMap<String, crate::definition::raw::scalar::Expression>")]
            pub save: $crate::definition::raw::scalar::Ordered<$crate::definition::raw::scalar::Expression>,
            /// What the caller gets: a JSON value whose texts are templates. Default: the answer's body.
            #[serde(default)]
            pub result: Option<serde_json::Value>,
            /// Total time. Default: the API's `timeouts.total`.
            #[serde(default)]
            pub timeout: Option<$crate::definition::raw::scalar::DurationText>,
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// The fields of the request shape.
            pub fn shape(&self) -> $crate::definition::raw::request::Shape<'_> {
                $crate::definition::raw::request::Shape {
                    request: &self.request,
                    query: &self.query,
                    headers: &self.headers,
                    form: self.form.as_ref(),
                    json: self.json.as_ref(),
                    text: self.text.as_ref(),
                    basic: self.basic.as_ref(),
                    credential: self.credential.as_ref(),
                    ok: self.ok.as_ref(),
                    error: self.error.as_ref(),
                    save: &self.save,
                    result: self.result.as_ref(),
                    timeout: self.timeout,
                }
            }

        }
    };
}
pub(crate) use request_shape;

/// The fields that every request-shaped block has.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Method and address.
    pub request: &'a Template,
    /// Query parameters.
    pub query: &'a Ordered<Value>,
    /// Headers.
    pub headers: &'a Ordered<Template>,
    /// Form body.
    pub form: Option<&'a serde_json::Map<String, Value>>,
    /// JSON body.
    pub json: Option<&'a Value>,
    /// Text body.
    pub text: Option<&'a Template>,
    /// Basic credentials.
    pub basic: Option<&'a BasicPair>,
    /// Which credential.
    pub credential: Option<&'a CredentialWord>,
    /// Success.
    pub ok: Option<&'a Expression>,
    /// The service's words.
    pub error: Option<&'a Expression>,
    /// Values to keep.
    pub save: &'a Ordered<Expression>,
    /// What the caller gets.
    pub result: Option<&'a Value>,
    /// Total time.
    pub timeout: Option<DurationText>,
}

request_shape! {
    /// A request.
    Request {}
}

impl Short for Request {
    const SHORT: &'static str = "method and address, such as `GET /user`";

    fn from_short(request: String) -> Self {
        Self {
            request: Template(request),
            query: Vec::new(),
            headers: Vec::new(),
            form: None,
            json: None,
            text: None,
            basic: None,
            credential: None,
            ok: None,
            error: None,
            save: Vec::new(),
            result: None,
            timeout: None,
        }
    }
}

request_shape! {
    /// The request that tells who is signed in, and where the answer says so.
    Identity {
        /// The account's id at the service. Must not be none.
        id: Expression,
        /// What people call the account.
        #[serde(default)]
        name: Option<Expression>,
        /// The account's mail address.
        #[serde(default)]
        email: Option<Expression>,
    }
}

/// Name and password as templates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicPair {
    /// The name.
    pub username: Template,
    /// The password; may be empty.
    #[serde(default = "empty")]
    pub password: Template,
}

fn empty() -> Template {
    Template(String::new())
}

/// Which credential a request carries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CredentialWord(
    /// `token`, `client`, `none`, or `token NAME`.
    #[schemars(regex(pattern = r"^(token( [a-z0-9_]+)?|client|none)$"))]
    pub String,
);
