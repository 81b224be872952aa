//! JSON as a tree that can be opened and searched: nested `details`, text and nothing but text.
//!
//! Bounded in nodes and in depth: what is cut is said, and the whole is one link away.

use std::fmt::Write as _;

use minijinja::value::Value as Shown;
use minijinja::{Environment, HtmlEscape};
use serde_json::Value;

/// The most values of a tree.
const NODES: usize = 2_000;
/// The deepest that is opened.
const DEPTH: usize = 24;
/// Levels that are open at first.
const OPEN: usize = 2;
/// The most characters of a text.
const TEXT: usize = 4_000;

pub(super) fn add_to(pages: &mut Environment<'static>) {
    pages.add_filter("tree", |value: Shown| {
        Shown::from_safe_string(tree(&serde_json::to_value(&value).unwrap_or(Value::Null)))
    });
}

/// The tree of a value.
pub fn tree(value: &Value) -> String {
    let mut tree = Tree { html: String::from("<div class=\"tree\">"), left: NODES };
    tree.add(None, value, 0);
    if tree.left == 0 {
        tree.html.push_str("<p class=\"note\">The rest is not shown here.</p>");
    }
    tree.html.push_str("</div>");
    tree.html
}

struct Tree {
    html: String,
    left: usize,
}

impl Tree {
    fn add(&mut self, key: Option<&str>, value: &Value, depth: usize) {
        let Some(left) = self.left.checked_sub(1) else { return };
        self.left = left;
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.branch(key, (depth, map.len(), "{"), map.iter().map(|(key, value)| (Some(key.as_str()), value)));
            }
            Value::Array(items) if !items.is_empty() => {
                self.branch(key, (depth, items.len(), "["), items.iter().map(|value| (None, value)));
            }
            leaf => self.leaf(key, leaf),
        }
    }

    fn branch<'a>(
        &mut self,
        key: Option<&str>,
        (depth, count, mark): (usize, usize, &str),
        items: impl Iterator<Item = (Option<&'a str>, &'a Value)>,
    ) {
        if depth >= DEPTH {
            self.put(key, "note", "… deeper than is shown");
            return;
        }
        self.html.push_str(if depth < OPEN { "<details open><summary>" } else { "<details><summary>" });
        self.key(key);
        let noun = if mark == "{" { "field" } else { "item" };
        let ending = if count == 1 { "" } else { "s" };
        self.write(format_args!("<span class=\"note\">{mark} {count} {noun}{ending}</span></summary><ul>"));
        for (key, value) in items {
            self.html.push_str("<li>");
            self.add(key, value, depth + 1);
            self.html.push_str("</li>");
        }
        self.html.push_str("</ul></details>");
    }

    fn leaf(&mut self, key: Option<&str>, value: &Value) {
        match value {
            Value::String(text) => {
                let mut shown: String = text.chars().take(TEXT).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                self.put(key, "t-text", &shown);
            }
            Value::Number(number) => self.put(key, "t-number", &number.to_string()),
            Value::Bool(is) => self.put(key, "t-word", if *is { "true" } else { "false" }),
            Value::Null => self.put(key, "t-word", "null"),
            Value::Object(_) => self.put(key, "note", "{ } empty"),
            Value::Array(_) => self.put(key, "note", "[ ] empty"),
        }
    }

    fn put(&mut self, key: Option<&str>, class: &str, text: &str) {
        self.key(key);
        self.write(format_args!("<span class=\"{class}\">{}</span>", HtmlEscape(text)));
    }

    fn key(&mut self, key: Option<&str>) {
        if let Some(key) = key {
            self.write(format_args!("<span class=\"t-key\">{}</span> ", HtmlEscape(key)));
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        if self.html.write_fmt(text).is_err() {
            self.left = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_sent_is_text() {
        let hostile = "<script>alert(1)</script>\"'";
        let html = tree(&json!({ hostile: hostile, "list": [hostile, 1, true, null, {}, []] }));
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
        assert!(html.contains("2 fields") && html.contains("6 items"));
    }

    #[test]
    fn a_tree_is_bounded_in_width_depth_and_text() {
        assert!(tree(&json!(vec![1; 10_000])).contains("The rest is not shown"));
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(tree(&deep).contains("deeper than is shown"));
        assert!(tree(&json!("x".repeat(100_000))).len() < 5_000);
    }
}
