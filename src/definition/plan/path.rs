//! Which paths something restricting is for: a limit, a circuit of its own.

use super::rule::Glob;
use crate::base::path::{lax, normal};

/// A pattern of paths in which `*` stands for any text. It is also for a path that only a lax server takes for one
/// of those meant, so that a slash at the end, two slashes or an encoded colon evade nothing. What permits
/// compares by [`Glob`] instead, so that it does not grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob {
    exact: Glob,
    lax: Glob,
}

impl PathGlob {
    /// The pattern as written, in any spelling.
    pub fn new(pattern: &str) -> Self {
        Self { exact: Glob::new(&normal(pattern)), lax: Glob::new(&lax(pattern)) }
    }

    /// Whether any of some patterns is for a path in its normal form.
    pub fn any_is_for(patterns: &[Self], path: &str) -> bool {
        let read = lax(path);
        patterns.iter().any(|pattern| pattern.exact.matches(path) || pattern.lax.matches(&read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_path_leads_past_a_pattern() {
        let is_for = |pattern: &str, path: &str| PathGlob::any_is_for(&[PathGlob::new(pattern)], path);
        for path in ["/v1/search", "/v1/search/", "/v1//search", "/v1/search;x=1", "/v1/search//"] {
            assert!(is_for("/v1/search", path) && is_for("/v1/%73earch/", path), "{path}");
        }
        assert!(is_for("/x:batch", "/x%3Abatch") && is_for("/x%3abatch", "/x:batch"));
        assert!(is_for("/v1/*", "/v1/") && is_for("/v1/*", "/v1/a/"));
        for path in ["/v1/searches", "/v1/search/a", "/V1/search", "/v1"] {
            assert!(!is_for("/v1/search", path), "{path}");
        }
    }
}
