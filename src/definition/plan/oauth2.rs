//! OAuth 2.0, compiled: every default decided.

use std::sync::Arc;
use std::time::Duration;

use super::assertion::Assertion;
use super::identity::Identity as Certificate;
use super::moment::Moment;
use super::request::{Body, Request};
use crate::base::secret::Secret;
use crate::template::{Expr, Text, Tree};

/// How long a token call may take unless it says otherwise.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The name of the token that calls carry unless they name another.
pub const DEFAULT_TOKEN: &str = "default";

/// A service's OAuth 2.0.
#[derive(Debug)]
pub struct OAuth2 {
    /// How a token is come by.
    pub grant: Grant,
    /// The issuer: its metadata (RFC 8414) fill in the addresses that are not written here.
    pub issuer: Option<Text>,
    /// Where the person is sent; `None` when the issuer's metadata must tell, or the grant needs none.
    pub authorize: Option<Authorize>,
    /// Where the parameters of an authorization are pushed before a person is sent (RFC 9126); `None` when only
    /// the issuer's metadata may say so.
    pub push: Option<Request>,
    /// What stands between scopes where they are one text.
    pub scope_separator: String,
    /// The calls that bring a token, in order. Empty when the issuer's metadata must tell the address.
    pub token: Vec<TokenCall>,
    /// The calls that renew a token, where they are not those of `token`.
    pub refresh: Option<Vec<TokenCall>>,
    /// What becomes of refresh tokens.
    pub refresh_tokens: RefreshPolicy,
    /// The calls that take a token back; empty when there are none, or the issuer's metadata may tell.
    pub revoke: Vec<Request>,
    /// Whether tokens that were replaced by connecting anew are taken back.
    pub revoke_replaced: bool,
    /// The call that tells what a token is worth (RFC 7662).
    pub introspect: Option<TokenCall>,
    /// The device authorization request (RFC 8628).
    pub device: Option<Request>,
    /// The signed assertion of `jwt_bearer` and of `private_key_jwt`.
    pub assertion: Option<Assertion>,
    /// What is exchanged (RFC 8693).
    pub exchange: Option<Exchange>,
    /// How the application proves itself in token calls.
    pub client_auth: ClientAuth,
    /// The application's own credentials. A catalogue entry has none until a deployment adds them.
    pub client: Option<Client>,
    /// What can be asked for.
    pub scopes: Vec<Scope>,
    /// Whether codes are bound to this gateway (RFC 7636).
    pub pkce: Pkce,
    /// Resources the token is for (RFC 8707).
    pub resource: Vec<Text>,
    /// Registering the application by itself; not done where there is a `client`.
    pub registration: Option<Registration>,
    /// What the callback brings.
    pub callback: Callback,
    /// Who is signed in.
    pub identity: Option<Identity>,
    /// Steps after connecting that choose an account or site.
    pub discover: Vec<Discover>,
}

impl OAuth2 {
    /// Whether what was granted lets a connection do what needs this scope.
    pub fn grants(&self, granted: &[String], needed: &str) -> bool {
        let includes = |name: &String| {
            let declared = self.scopes.iter().filter(|scope| scope.name == *name);
            declared.flat_map(|scope| &scope.includes).any(|included| included == needed)
        };
        granted.iter().any(|name| name == needed || includes(name))
    }

    /// The scopes that are asked for unless a connection says otherwise.
    pub fn default_scopes(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().filter(|scope| scope.default)
    }
}

/// How a token is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// A person consents in a browser (RFC 6749 §4.1).
    AuthorizationCode,
    /// The application acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// A person consents on another device (RFC 8628).
    DeviceCode,
    /// A signed assertion is exchanged (RFC 7523).
    JwtBearer,
    /// A token is exchanged for another (RFC 8693).
    TokenExchange,
}

impl Grant {
    /// Whether a person has to consent, so that a connection is made by them and not by the first call.
    pub const fn needs_person(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::DeviceCode)
    }

    /// Whether the application has to be known at the service. An assertion and an exchanged token can
    /// stand for themselves.
    pub const fn needs_client(self) -> bool {
        matches!(self, Self::AuthorizationCode | Self::ClientCredentials | Self::DeviceCode)
    }
}

/// Registering the application by itself (RFC 7591).
#[derive(Debug)]
pub struct Registration {
    /// The registration endpoint; `None` when the issuer's metadata must tell.
    pub url: Option<Text>,
    /// The initial access token.
    pub token: Option<Secret>,
    /// Metadata of the application, in order.
    pub metadata: Vec<(String, Tree)>,
}

/// Where the person is sent.
#[derive(Debug)]
pub struct Authorize {
    /// The address.
    pub url: Text,
    /// More parameters in order; one of a standard parameter's name stands in its place.
    pub params: Vec<(String, Tree)>,
    /// Whether scopes are written without percent-encoding.
    pub raw_scope: bool,
    /// The service's names for standard parameters.
    pub rename: Vec<(String, String)>,
    /// Standard parameters that are not sent.
    pub omit: Vec<String>,
    /// What stands behind a `#` at the end.
    pub fragment: Option<String>,
}

/// A call that brings, renews or examines tokens.
#[derive(Debug)]
pub struct TokenCall {
    /// The request, without the standard parameters.
    pub request: Request,
    /// Where the standard parameters go.
    pub params_in: ParamsIn,
    /// The service's names for standard parameters.
    pub rename: Vec<(String, String)>,
    /// Standard parameters that are not sent.
    pub omit: Vec<String>,
    /// Where the answer holds tokens, by name; the standard fields as `default` where nothing is written.
    pub tokens: Vec<(String, TokenMap)>,
    /// Whether `tokens` is written out.
    pub mapped: bool,
    /// Whether an error is permanent; the standard codes decide where nothing is written.
    pub permanent: Option<Expr>,
    /// How long a token lives when the answer does not say.
    pub default_ttl: Option<Duration>,
}

impl TokenCall {
    /// A call that brings no token: this request, with the standard parameters in its JSON object, in the query of a GET, else in a form.
    pub fn plain(request: Request) -> Self {
        let params_in = match &request.body {
            Body::Json(_) => ParamsIn::Json,
            // Hardly any server reads the body of a GET.
            Body::Empty if request.method == http::Method::GET => ParamsIn::Query,
            _ => ParamsIn::Form,
        };
        Self {
            request,
            params_in,
            rename: Vec::new(),
            omit: Vec::new(),
            tokens: Vec::new(),
            mapped: true,
            permanent: None,
            default_ttl: None,
        }
    }
}

/// Where the standard parameters of a token call go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamsIn {
    /// Into the form.
    Form,
    /// Into the JSON object.
    Json,
    /// Into the query.
    Query,
    /// Nowhere: the body is a text that has what it needs.
    Nowhere,
}

/// What becomes of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshPolicy {
    /// A new one replaces it where the answer has one; else it is kept.
    Keep,
    /// Each can be used once.
    Rotate,
    /// The call lengthens the life of the access token.
    Extend,
}

/// Where an answer holds a token.
#[derive(Debug, Clone)]
pub struct TokenMap {
    /// The access token.
    pub access: Expr,
    /// The refresh token.
    pub refresh: Option<Expr>,
    /// Seconds until it expires.
    pub expires_in: Option<Expr>,
    /// When it expires.
    pub expires: Option<Moment>,
    /// The scopes that were granted.
    pub scope: Option<Expr>,
}

/// What is exchanged.
#[derive(Debug)]
pub struct Exchange {
    /// The token that is exchanged.
    pub subject_token: Text,
    /// Its type URI.
    pub subject_token_type: String,
    /// The token of who acts, and its type URI.
    pub actor: Option<(Text, String)>,
    /// The type URI wanted.
    pub requested_token_type: Option<String>,
    /// Who the token is for.
    pub audience: Vec<Text>,
}

/// How the application proves itself in token calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_id` and `client_secret` among the parameters.
    Form,
    /// Basic with form-encoded id and secret (RFC 6749 §2.3.1).
    Basic,
    /// Basic with id and secret as they are.
    BasicRaw,
    /// `client_id` only.
    None,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
}

/// The application's own credentials.
#[derive(Debug)]
pub struct Client {
    /// The client id.
    pub id: String,
    /// The client secret.
    pub secret: Option<Secret>,
    /// The certificate that token calls are made with (RFC 8705).
    pub certificate: Option<Arc<Certificate>>,
}

/// Something that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its name at the service.
    pub name: String,
    /// What it lets the application do, in plain words.
    pub grants: String,
    /// Whether it is asked for unless a connection says otherwise.
    pub default: bool,
    /// The named token it belongs to.
    pub token: String,
    /// Scopes that it stands for as well.
    pub includes: Vec<String>,
}

/// Proof Key for Code Exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pkce {
    /// With S256.
    S256,
    /// Without, for this reason.
    Off(String),
}

/// What a callback brings.
#[derive(Debug)]
pub struct Callback {
    /// The parameter that holds the code.
    pub code: String,
    /// Values to keep from the query.
    pub save: Vec<(String, Expr)>,
}

/// The request that tells who is signed in.
#[derive(Debug)]
pub struct Identity {
    /// The request.
    pub request: Request,
    /// The account's id at the service.
    pub id: Expr,
    /// What people call the account.
    pub name: Option<Expr>,
    /// The account's mail address.
    pub email: Option<Expr>,
}

/// A step after connecting.
#[derive(Debug)]
pub struct Discover {
    /// The request.
    pub request: Request,
    /// The list to choose from; without it the answer itself is the one choice.
    pub choices: Option<Expr>,
    /// What is shown of a choice.
    pub label: Option<Expr>,
    /// What is kept of the choice.
    pub set: Vec<(String, Expr)>,
}
