//! The `verify` block: what proves that a webhook comes from the service.

use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::{JwtAlgorithm, KeyEncoding};
use super::form::{Filled, OneOrMany, Ordered, Short, ShortOr, single_key};
use super::plugin::PluginUse;
use super::scalar::{DurationText, Expression, HeaderText, Separator, Signed, Template, TimeUnit};

/// What proves that a webhook comes from the service: one kind. Whatever the kind, a request that does
/// not verify is refused with 401 and never stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = single_key)]
pub enum Verify {
    /// A keyed digest over what was sent (RFC 2104).
    Hmac(Box<Hmac>),
    /// A plain digest over the secret and what was sent. Weaker than `hmac`; only because some services
    /// know nothing else.
    Digest(Box<PlainDigest>),
    /// An Ed25519 signature (RFC 8032).
    Ed25519(Box<PublicKey>),
    /// An ECDSA signature.
    Ecdsa(Box<PublicKey>),
    /// An RSA signature.
    Rsa(Box<PublicKey>),
    /// A signed token (RFC 7519) in a header.
    Jwt(Box<Jwt>),
    /// HTTP message signatures (RFC 9421).
    HttpSignature(HttpSignature),
    /// A shared value, compared in constant time. Proves nothing about the body.
    Token(Token),
    /// `Authorization: Basic` whose password is the secret. Proves nothing about the body.
    Basic(BasicName),
    /// A client certificate.
    Mtls(ClientCertificate),
    /// All of these must verify.
    All(Vec<Verify>),
    /// One of these must verify.
    Any(Vec<Verify>),
    /// A plugin decides.
    Plugin(PluginUse),
}

/// A keyed digest over what was sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// The digest.
    pub algorithm: DigestAlgorithm,
    /// How a secret's text becomes key bytes. Default: its UTF-8 bytes.
    pub key: Option<Key>,
    /// Where signatures are found: of several places any may match.
    pub signature: OneOrMany<Signature>,
    /// The time that is part of what is signed; requests outside its tolerance are refused.
    pub timestamp: Option<Timestamp>,
    /// What is signed, such as `{{ body }}` or `v0:{{ timestamp }}:{{ body }}`.
    #[schemars(extend("x-sees" = "signed"))]
    pub signed: Signed,
    /// JSON fields that `{{ lines }}` stands for, in order; those that are absent are left out.
    #[serde(default)]
    pub lines: Vec<String>,
    /// The header that names the headers which `{{ headers_listed }}` stands for.
    pub listed_headers: Option<HeaderText>,
    /// A digest of the body that must match, where the signature covers only that.
    pub body_digest: Option<BodyDigest>,
}

/// A plain digest over the secret and what was sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlainDigest {
    /// The digest.
    pub algorithm: DigestAlgorithm,
    /// Where the digest is found.
    pub signature: OneOrMany<Signature>,
    /// The time that is part of what is digested.
    pub timestamp: Option<Timestamp>,
    /// What is digested, such as `{{ secret }}{{ body }}`.
    #[schemars(extend("x-sees" = "signed"))]
    pub signed: Signed,
}

/// A signature by a private key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// The algorithm. Default `ed25519`, `ecdsa_p256_sha256` or `rsa_pkcs1_sha256` by kind.
    pub algorithm: Option<SignatureAlgorithm>,
    /// The public keys, any of which may match: PEM, JWK, or raw bytes in `key_encoding`. Without them and
    /// without `fetch` the webhook's secrets are the keys, for services that give each application its own.
    #[serde(default)]
    pub keys: OneOrMany<String>,
    /// How keys that are neither PEM nor JWK are written. Default `base64`.
    pub key_encoding: Option<KeyEncoding>,
    /// A certificate or key that the request names.
    pub fetch: Option<FetchedKey>,
    /// Where signatures are found.
    pub signature: OneOrMany<Signature>,
    /// The time that is part of what is signed.
    pub timestamp: Option<Timestamp>,
    /// What is signed.
    #[schemars(extend("x-sees" = "signed"))]
    pub signed: Signed,
    /// JSON fields that `{{ lines }}` stands for, in order; those that are absent are left out.
    #[serde(default)]
    pub lines: Vec<String>,
}

/// A certificate or key that a request names, fetched from an allowed host and kept for a day.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchedKey {
    /// Its address.
    pub url: Expression,
    /// The hosts it may be at: a name, or `*.` and a name for all names below it.
    #[schemars(extend("x-hosts" = true))]
    pub hosts: Filled<String>,
    /// A regular expression that the address's path matches. Default: any path.
    #[schemars(extend("x-regex" = true))]
    pub path: Option<String>,
    /// The name that a certificate must be for. Default: any that the system's authorities vouch for.
    pub subject: Option<String>,
}

/// A signed token in a header.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The header that carries it. Default `Authorization`.
    pub header: Option<HeaderText>,
    /// What stands before it. Default `Bearer ` for `Authorization`, else nothing.
    pub prefix: Option<String>,
    /// The algorithms that are accepted; the token's own header decides nothing.
    pub algorithms: Filled<JwtAlgorithm>,
    /// The key set (RFC 7517) with the public keys. Without it the secrets are the keys.
    #[schemars(extend("x-url" = "https"))]
    pub jwks: Option<String>,
    /// Who must have issued it.
    pub issuer: Option<String>,
    /// Whom it must be for.
    pub audience: Option<Template>,
    /// Other claims that must be just so.
    #[serde(default)]
    pub claims: Ordered<serde_json::Value>,
    /// How far clocks may be apart. Default 60s.
    pub leeway: Option<DurationText>,
    /// How old a token may be by its `iat`. Default: any age.
    pub max_age: Option<DurationText>,
    /// The claim that holds a digest of the body. Without it the body is not proved.
    pub body_digest: Option<BodyDigest>,
}

/// Where a digest of the body is found.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyDigest {
    /// The claim of the token.
    pub claim: Option<String>,
    /// The header.
    pub header: Option<HeaderText>,
    /// The query parameter.
    pub query: Option<String>,
    /// The digest.
    pub algorithm: DigestAlgorithm,
    /// How it is written. Default `hex`.
    pub encoding: Option<Encoding>,
}

/// HTTP message signatures.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSignature {
    /// The algorithm.
    pub algorithm: SignatureAlgorithm,
    /// The public keys; without one the secrets are the keys.
    #[serde(default)]
    pub keys: OneOrMany<String>,
    /// The label of the signature. Default: the only one.
    pub label: Option<String>,
    /// Components that must be covered. `content-digest` always is.
    #[serde(default)]
    pub covers: Vec<String>,
    /// How old a signature may be by its `created`. Default 5m.
    pub tolerance: Option<DurationText>,
}

/// Where a shared value is found: one of `header`, `query`, `json`, `form`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The header that carries it.
    pub header: Option<HeaderText>,
    /// What stands before it in the header, such as `Bearer `.
    pub prefix: Option<String>,
    /// The query parameter that carries it.
    pub query: Option<String>,
    /// The value of the body that is it.
    pub json: Option<Expression>,
    /// The form field that carries it.
    pub form: Option<String>,
}

/// The name that goes with the secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicName {
    /// The name that must come with the password.
    pub username: String,
}

/// A client certificate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The authorities that vouch for it, in PEM.
    #[schemars(extend("x-pem" = "certificate"))]
    pub ca: String,
    /// The name it must be for.
    pub subject: Option<String>,
}

/// How a secret's text becomes key bytes: `strip_prefix`, then `normalise`, then `encoding`, then
/// `derive`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A prefix that is taken off first where it is there, such as `whsec_`.
    pub strip_prefix: Option<String>,
    /// How the rest is decoded. Default `utf8`.
    pub encoding: Option<KeyEncoding>,
    /// How the text is normalised before.
    pub normalise: Option<Normalise>,
    /// The digest whose value is the key.
    pub derive: Option<DigestAlgorithm>,
    /// The header that names the secret's id, where the service says which it used.
    pub id_header: Option<HeaderText>,
}

/// A Unicode normalisation form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// NFKD.
    Nfkd,
}

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DigestAlgorithm {
    /// MD5: broken; only under `digest`, because one service knows nothing else.
    Md5,
    /// SHA-1: safe under HMAC only.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureAlgorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA over P-256 with SHA-256, in DER.
    EcdsaP256Sha256,
    /// The same with the two numbers side by side.
    EcdsaP256Sha256Fixed,
    /// ECDSA over P-384 with SHA-384, in DER.
    EcdsaP384Sha384,
    /// RSA PKCS#1 v1.5 with SHA-1: only because one service still knows nothing else.
    RsaPkcs1Sha1,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSA-PSS with SHA-256.
    RsaPssSha256,
    /// RSA-PSS with SHA-512.
    RsaPssSha512,
    /// HMAC-SHA256, for HTTP message signatures with a shared secret.
    HmacSha256,
}

/// How a digest or signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Hexadecimal in lower case.
    Hex,
    /// Hexadecimal in either case.
    HexAnyCase,
    /// Base 64 with padding.
    Base64,
    /// Base 64 with the URL alphabet, canonical, padded or not.
    Base64url,
}

/// Where signatures are found, and how they are written: one of `header`, `query`, `json`, `form`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The header. A `*` at its end stands for a number, for services that send one header a key.
    pub header: Option<HeaderText>,
    /// The query parameter.
    pub query: Option<String>,
    /// The value of the body. It is read to find the signature; the body is never written anew.
    pub json: Option<Expression>,
    /// The form field.
    pub form: Option<String>,
    /// The value is a list of `name=value` pairs, as in `t=…,v1=…`; those with this name are signatures.
    pub pairs: Option<String>,
    /// The value is a list, and this item, from 0, is a signature.
    pub position: Option<u8>,
    /// The value is a list, and any item may be a signature; at most ten are tried.
    #[serde(default)]
    pub list: bool,
    /// What stands between pairs or items. Default: a comma.
    pub separator: Option<Separator>,
    /// What stands before each signature, such as `sha256=`.
    pub prefix: Option<ShortOr<Prefix>>,
    /// How it is written. Default `hex`.
    pub encoding: Option<Encoding>,
}

/// A fixed text before a signature.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// The text.
    pub text: String,
    /// Whether a signature without it is taken as well.
    #[serde(default)]
    pub optional: bool,
}

impl Short for Prefix {
    const SHORT: &'static str = "a text such as `sha256=`";

    fn from_short(text: String) -> Result<Self, String> {
        Ok(Self { text, optional: false })
    }
}

/// The time of a request: from a `header` (whole, or a pair or item of it), or a `value`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The header that holds it.
    pub header: Option<HeaderText>,
    /// The header is a list of `name=value` pairs, and the one with this name is it.
    pub pairs: Option<String>,
    /// The header is a list, and this item, from 0, is it.
    pub position: Option<u8>,
    /// What stands between pairs or items. Default: a comma.
    pub separator: Option<Separator>,
    /// The value, where it is not in a header.
    pub value: Option<Expression>,
    /// How it is written.
    pub unit: TimeUnit,
    /// How far it may lie from now, in the past and in the future. Default 5m.
    pub tolerance: Option<DurationText>,
    /// How far it may lie in the past, where that differs.
    pub past: Option<DurationText>,
    /// How far it may lie in the future, where that differs.
    pub future: Option<DurationText>,
    /// Says that the service does not sign it. Such a time keeps no attacker out: prefer a
    /// `delivery_id`.
    #[serde(default)]
    pub unsigned: bool,
}
