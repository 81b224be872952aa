//! The `syncs` block, and paging, which endpoints share with it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::request::request_shape;
use super::scalar::{DurationText, Expression, Id};

request_shape! {
    /// An incremental copy of a remote collection.
    Sync {
        /// Its id, unique in the definition.
        id: Id,
        /// Scopes a connection must have been granted.
        #[serde(default)]
        scopes: Vec<String>,
        /// How often it runs.
        every: DurationText,
        /// The list of records. Sees `body`, `headers`.
        records: Expression,
        /// A record's key. Sees `record`. Must not be none.
        key: Expression,
        /// Whether a record was deleted. Sees `record`.
        #[serde(default)]
        deleted: Option<Expression>,
        /// How the collection comes in pages.
        #[serde(default)]
        page: Option<Page>,
        /// What a run begins with, and ends by saving.
        #[serde(default)]
        cursor: Option<Cursor>,
        /// How often a full pass is made, for changes that an incremental one does not show.
        #[serde(default)]
        full: Option<DurationText>,
    }
}

/// How answers come in pages: one of `link`, `url`, `query`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The relation in the `Link` header (RFC 8288) that leads to the next page, usually `next`.
    #[serde(default)]
    pub link: Option<String>,
    /// The next page's address. Sees `body`, `headers`.
    #[serde(default)]
    pub url: Option<Expression>,
    /// The query parameter that asks for the next page; needs `from`.
    #[serde(default)]
    pub query: Option<String>,
    /// The value of that parameter. Sees `body`, `headers`.
    #[serde(default)]
    pub from: Option<Expression>,
    /// Whether there is a next page, where its presence does not tell. Sees `body`, `headers`.
    #[serde(default, rename = "while")]
    pub more: Option<Expression>,
}

/// What an incremental run begins with, and ends by saving: `from` each record, or `token` of the last
/// page.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The value of a record whose greatest is saved. Sees `record`.
    #[serde(default)]
    pub from: Option<Expression>,
    /// The value of the last page that is saved. Sees `body`.
    #[serde(default)]
    pub token: Option<Expression>,
    /// The query parameter that carries the cursor.
    #[serde(default)]
    pub query: Option<String>,
    /// How a time is written, as strftime.
    #[serde(default)]
    pub format: Option<String>,
    /// How a time is written, where it is a number.
    #[serde(default)]
    pub unit: Option<super::api::TimeUnit>,
    /// How far a run reaches back behind the cursor, for rows that became visible late.
    #[serde(default)]
    pub overlap: Option<DurationText>,
    /// Whether the service no longer knows the cursor, so that a full pass is needed. Sees `status`,
    /// `body`.
    #[serde(default)]
    pub expired: Option<Expression>,
}
