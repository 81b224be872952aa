//! The `syncs` block, and paging, which endpoints share with it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::request::request_shape;
use super::scalar::{DurationText, Expression, Id, TimeUnit};

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
        /// The list of records.
        #[schemars(extend("x-answer" = true))]
        records: Expression,
        /// A record's key. Must not be none.
        #[schemars(extend("x-sees" = "record"))]
        key: Expression,
        /// Whether a record was deleted.
        #[schemars(extend("x-sees" = "record"))]
            deleted: Option<Expression>,
        /// How the collection comes in pages.
            page: Option<Page>,
        /// What a run begins with, and ends by saving.
            cursor: Option<Cursor>,
        /// How often a full pass is made, for changes that an incremental one does not show.
            full: Option<DurationText>,
    }
}

/// How answers come in pages: one of `link`, `url`, `query`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-sees" = "answer"))]
pub struct Page {
    /// The relation in the `Link` header (RFC 8288) that leads to the next page, usually `next`.
    pub link: Option<String>,
    /// The next page's address.
    pub url: Option<Expression>,
    /// The query parameter that asks for the next page; needs `from`.
    pub query: Option<String>,
    /// The value of that parameter; the last page is where it is none.
    pub from: Option<Expression>,
    /// Whether there is a next page, where the presence of a value does not tell.
    #[serde(rename = "while")]
    pub more: Option<Expression>,
}

/// What an incremental run begins with, and ends by saving: `from` each record, or `token` of the last
/// page.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-sees" = "answer"))]
pub struct Cursor {
    /// The value of a record whose greatest is saved after the last page.
    #[schemars(extend("x-sees" = "record"))]
    pub from: Option<Expression>,
    /// The value of the last page that is saved.
    pub token: Option<Expression>,
    /// The query parameter that carries the cursor.
    pub query: Option<String>,
    /// How a time is written, as strftime.
    pub format: Option<String>,
    /// How a time is written, where it is a number.
    pub unit: Option<TimeUnit>,
    /// How far a run reaches back behind the cursor, for rows that became visible late.
    pub overlap: Option<DurationText>,
    /// Whether the service no longer knows the cursor, so that a full pass is needed.
    pub expired: Option<Expression>,
}
