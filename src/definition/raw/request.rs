//! The one request shape, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{Ordered, Short};
use super::scalar::{CredentialWord, DurationText, Expression, HeaderText, Template, Tree};

/// Declares a struct that has the fields of the request shape, and others of its own. They are
/// repeated rather than flattened because flattening gives up unknown-field errors.
macro_rules! request_shape {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            /// Method and address: `GET /path` below the API's base URL, or `POST https://host/path`.
            #[schemars(extend("x-request" = "call"))]
            pub request: $crate::definition::raw::scalar::Template,
            /// Query parameters, after those of the address. A value that is none leaves its parameter
            /// out; a list repeats it.
            #[serde(default)]
            pub query: $crate::definition::raw::form::Ordered<$crate::definition::raw::scalar::Tree>,
            /// Headers.
            #[serde(default)]
            #[schemars(extend("x-headers" = true))]
            pub headers: $crate::definition::raw::form::Ordered<$crate::definition::raw::scalar::Template>,
            /// Body as `application/x-www-form-urlencoded`. A value that is none leaves its field out;
            /// a list repeats it.
            pub form: Option<$crate::definition::raw::form::Ordered<$crate::definition::raw::scalar::Tree>>,
            /// Body as JSON: its texts are templates, its tree is not.
            pub json: Option<$crate::definition::raw::scalar::Tree>,
            /// Body as text, under the `Content-Type` of `headers`, else `text/plain`.
            pub text: Option<$crate::definition::raw::scalar::Template>,
            /// Name and password for `Authorization: Basic`, instead of the connection's credential.
            pub basic: Option<$crate::definition::raw::request::BasicPair>,
            /// Which credential is added: `token`, `token NAME` where the connection has several,
            /// `client` (the OAuth client's own id and secret) or `none`. Default: `token`, and `none`
            /// for token calls, which have `client_auth`.
            pub credential: Option<$crate::definition::raw::scalar::CredentialWord>,
            /// What makes an answer a success. Default: the API's `ok`, and a 2xx status.
            #[schemars(extend("x-answer" = true))]
            pub ok: Option<$crate::definition::raw::scalar::Expression>,
            /// The service's words for what went wrong.
            #[schemars(extend("x-answer" = true))]
            pub error: Option<$crate::definition::raw::scalar::Expression>,
            /// Values to keep from the answer, seen later as `saved.NAME`.
            #[serde(default)]
            #[schemars(extend("x-answer" = true))]
            pub save: $crate::definition::raw::form::Ordered<$crate::definition::raw::scalar::Expression>,
            /// What the caller gets: a JSON value whose texts are templates. Default: the answer's body.
            #[schemars(extend("x-answer" = true))]
            pub result: Option<$crate::definition::raw::scalar::Tree>,
            /// Total time from the start to the answer's end. Default: the API's `timeouts.total`; 30s for
            /// calls of an OAuth 2.0 sign-in.
            pub timeout: Option<$crate::definition::raw::scalar::DurationText>,
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
    pub query: &'a Ordered<Tree>,
    /// Headers.
    pub headers: &'a Ordered<Template>,
    /// Form body.
    pub form: Option<&'a Ordered<Tree>>,
    /// JSON body.
    pub json: Option<&'a Tree>,
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
    pub result: Option<&'a Tree>,
    /// Total time.
    pub timeout: Option<DurationText>,
}

request_shape! {
    /// A request.
    Request {}
}

impl Short for Request {
    const SHORT: &'static str = "method and address, such as `GET /user`";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-template", "text"), ("x-request", "call")];

    fn from_short(request: String) -> Result<Self, String> {
        Ok(Self {
            request: Template(request),
            query: Ordered::default(),
            headers: Ordered::default(),
            form: None,
            json: None,
            text: None,
            basic: None,
            credential: None,
            ok: None,
            error: None,
            save: Ordered::default(),
            result: None,
            timeout: None,
        })
    }
}

request_shape! {
    /// The request that tells who is signed in, and where the answer says so.
    Identity {
        /// The account's id at the service. Must not be none.
        #[schemars(extend("x-answer" = true))]
        id: Expression,
        /// What people call the account.
        #[schemars(extend("x-answer" = true))]
        name: Option<Expression>,
        /// The account's mail address.
        #[schemars(extend("x-answer" = true))]
        email: Option<Expression>,
    }
}

/// Name and password for `Authorization: Basic`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicPair {
    /// The name.
    pub username: Template,
    /// The password. Default: empty.
    pub password: Option<Template>,
}

/// Changes to a message that passes through.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Headers to set.
    #[serde(default)]
    #[schemars(extend("x-headers" = true))]
    pub headers: Ordered<Template>,
    /// Headers to remove.
    #[serde(default)]
    pub remove_headers: Vec<HeaderText>,
    /// The new body: a JSON value whose texts are templates. Default: the body passes unchanged.
    pub json: Option<Tree>,
}
