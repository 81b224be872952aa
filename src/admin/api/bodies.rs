//! Changes that take no body refuse one: what someone says there would be dropped without a word, and a filter that is
//! dropped selects everything.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use utoipa::openapi::Paths;
use utoipa::openapi::path::Operation;

use crate::admin::entry::route;
use crate::admin::refusal::Refused;
use crate::respond::Refusal;

/// The most bytes of what says nothing.
const NOTHING: usize = 64;

/// The routes that take a body, each with its method.
pub type Takers = HashSet<(Method, String)>;

/// Those of the API's table.
pub fn takers(paths: &Paths) -> Takers {
    let mut takers = Takers::new();
    for (path, item) in &paths.paths {
        let all = [
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        let has_body = |operation: &Option<Operation>| operation.as_ref().is_some_and(|of| of.request_body.is_some());
        takers.extend(all.into_iter().filter(|(_, of)| has_body(of)).map(|(method, _)| (method, path.clone())));
    }
    takers
}

/// Lets a change through that has a body where one is taken, or none.
///
/// # Errors
/// When it has one that nobody would read.
pub async fn judge(State(takers): State<Arc<Takers>>, request: Request, next: Next) -> Result<Response, Refused> {
    let is_change = crate::admin::guard::is_change(request.method());
    if !is_change || takers.contains(&(request.method().clone(), route(&request).to_owned())) {
        return Ok(next.run(request).await);
    }
    let (head, body) = request.into_parts();
    let says_nothing = to_bytes(body, NOTHING).await.is_ok_and(|body| says_nothing(&body));
    if !says_nothing {
        let help = "say what is meant in the path and the query";
        return Err(Refused::with_help(Refusal::InvalidInput, "this path takes no body", help));
    }
    Ok(next.run(Request::from_parts(head, Body::empty())).await)
}

/// Whether a body is none, JSON that has nothing in it, or the word of a session's form alone.
fn says_nothing(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    matches!(body, b"" | b"{}" | b"null") || (body.starts_with(b"form=") && !body.contains(&b'&'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_no_body() {
        for nothing in ["", " \n", "{}", "null", "form=0123456789abcdef"] {
            assert!(says_nothing(nothing.as_bytes()), "{nothing}");
        }
        for body in ["{\"integration\":\"a\"}", "[]", "0", "form=0&integration=a", "integration=a"] {
            assert!(!says_nothing(body.as_bytes()), "{body}");
        }
    }
}
