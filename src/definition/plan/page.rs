//! How a collection comes in pages, compiled.

use crate::template::Expr;

/// How a collection comes in pages. Its expressions see an answer: `body`, `headers`, `status`.
#[derive(Debug)]
pub struct Paging {
    /// How the next page is found.
    pub way: Way,
    /// Whether there is one, where the presence of a value does not tell.
    pub more: Option<Expr>,
    /// The list on a page; without it the body, or its only list.
    pub records: Option<Expr>,
}

/// How the next page is found.
#[derive(Debug)]
pub enum Way {
    /// By this relation in the `Link` header (RFC 8288).
    Link(String),
    /// At this address, absolute or relative to the page's own.
    Url(Expr),
    /// By a query parameter.
    Query {
        /// Its name.
        name: String,
        /// Its next value; the last page is where it is none.
        from: Expr,
    },
}
