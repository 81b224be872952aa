//! What the schema says of a place in a document: which fields it has, whether it is a secret, a
//! template or a choice.
//!
//! The validator says that something is wrong; this says what stands there, for merging, expanding
//! references and finding good words. Read once from the generated JSON Schema, so that the grammar
//! has one source. The marks are schema extensions: `x-secret`, `x-template`, `x-choice`,
//! `x-expected`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// A schema as a graph of places.
#[derive(Debug)]
pub struct Shape {
    nodes: Vec<Node>,
}

/// What one subschema says.
#[derive(Debug, Default)]
pub struct Node {
    /// The fields by name.
    properties: BTreeMap<Box<str>, usize>,
    /// What fields of other names are.
    additional: Option<usize>,
    /// What items are.
    items: Option<usize>,
    /// Subschemas that hold as well.
    also: Vec<usize>,
    /// Subschemas of which one holds.
    either: Vec<usize>,
    /// The types a value may have; empty means any.
    types: Vec<Box<str>>,
    /// The values there are, where they are few.
    pub options: Vec<Value>,
    /// What is expected, in words that follow `expected`.
    pub expected: Option<Box<str>>,
    /// The manual's words.
    pub description: Option<Box<str>>,
    /// Whether it is a secret.
    pub secret: bool,
    /// Whether it is a template, and of which kind.
    pub template: Option<TemplateKind>,
    /// Whether it is a JSON value whose texts are templates, however deep they stand.
    tree: bool,
    /// Whether it is a single-key map that names a kind.
    choice: bool,
}

/// The types of JSON Schema.
const TYPES: [&str; 7] = ["object", "string", "array", "integer", "number", "boolean", "null"];

/// How a text is read as a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateKind {
    /// A text with slots.
    Text,
    /// A bare expression.
    Expression,
}

/// All that the schema says of one value: several subschemas may apply to it.
#[derive(Clone)]
pub struct View<'a> {
    shape: &'a Shape,
    nodes: Vec<usize>,
}

impl Shape {
    /// Reads a schema. References point inside it.
    pub fn new(schema: &Value) -> Self {
        let mut reader = Reader { root: schema, nodes: Vec::new(), known: HashMap::new() };
        reader.read(schema);
        Self { nodes: reader.nodes }
    }

    /// What it says of a whole document.
    pub fn root<'a>(&'a self, value: &Value) -> View<'a> {
        self.view(std::iter::once(0), value)
    }

    /// What it says of the value at a pointer of a document.
    pub fn at<'a>(&'a self, document: &Value, pointer: &str) -> View<'a> {
        let (mut view, mut value) = (self.root(document), document);
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let child = match value {
                Value::Array(items) => token.parse::<usize>().ok().and_then(|place| items.get(place)),
                Value::Object(map) => map.get(&token),
                _ => None,
            };
            let Some(child) = child else { return View { shape: self, nodes: Vec::new() } };
            view = if value.is_array() { view.item(child) } else { view.field(&token, child) };
            value = child;
        }
        view
    }

    fn view(&self, nodes: impl Iterator<Item = usize>, value: &Value) -> View<'_> {
        let mut view = View { shape: self, nodes: Vec::new() };
        for node in nodes {
            self.gather(node, type_of(value), &mut view.nodes);
        }
        view
    }

    /// Collects a subschema and those it leads to for values of a type.
    fn gather(&self, id: usize, kind: &str, found: &mut Vec<usize>) {
        let node = &self.nodes[id];
        if found.contains(&id) || !node.admits(kind) {
            return;
        }
        found.push(id);
        for next in node.also.iter().chain(&node.either) {
            self.gather(*next, kind, found);
        }
    }
}

impl Shape {
    /// Whether values of a subschema, of whatever type, are secrets or have nothing but secrets in them.
    fn hides(&self, id: usize, seen: &mut Vec<usize>) -> bool {
        if seen.contains(&id) {
            return false;
        }
        seen.push(id);
        let node = &self.nodes[id];
        let inside = node.items.iter().chain(&node.additional);
        node.secret || node.also.iter().chain(&node.either).chain(inside).any(|next| self.hides(*next, seen))
    }
}

impl Node {
    fn admits(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|known| fits(known, kind))
    }

    /// Whether it says nothing, so that any value may stand there.
    fn says_nothing(&self) -> bool {
        self.tree || self.takes_anything()
    }

    fn takes_anything(&self) -> bool {
        self.types.is_empty()
            && self.properties.is_empty()
            && self.also.is_empty()
            && self.either.is_empty()
            && self.options.is_empty()
            && self.template.is_none()
    }
}

impl<'a> View<'a> {
    /// The subschemas that apply.
    pub fn nodes(&self) -> impl Iterator<Item = &'a Node> {
        let shape = self.shape;
        self.nodes.iter().map(move |id| &shape.nodes[*id])
    }

    /// What it says of a field of the value.
    #[must_use]
    pub fn field(&self, name: &str, value: &Value) -> Self {
        let of = |node: &'a Node| node.properties.get(name).copied().or(node.additional);
        // A value below a place that takes any value is a value of such a place itself.
        let any = self.nodes.iter().copied().filter(|id| self.shape.nodes[*id].says_nothing());
        self.shape.view(self.nodes().filter_map(of).chain(any), value)
    }

    /// What it says of an item of the value.
    #[must_use]
    pub fn item(&self, value: &Value) -> Self {
        let any = self.nodes.iter().copied().filter(|id| self.shape.nodes[*id].says_nothing());
        self.shape.view(self.nodes().filter_map(|node| node.items).chain(any), value)
    }

    /// The names of its fields, sorted.
    pub fn field_names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.nodes().flat_map(|node| node.properties.keys().map(|name| &**name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The manual's words on a field.
    pub fn field_description(&self, name: &str) -> Option<&'a str> {
        let id = self.nodes().find_map(|node| node.properties.get(name))?;
        let mut found = Vec::new();
        for kind in TYPES {
            self.shape.gather(*id, kind, &mut found);
        }
        found.iter().find_map(|id| self.shape.nodes[*id].description.as_deref())
    }

    /// Whether the value is a single-key map that names a kind: another key replaces all of it.
    pub fn is_choice(&self) -> bool {
        self.nodes().any(|node| node.choice)
    }

    /// The kinds of a choice; empty where the value is none.
    pub fn choices(&self) -> Vec<&'a str> {
        if self.is_choice() { self.field_names() } else { Vec::new() }
    }

    /// Whether the value, or an item of a list that may stand in its place, is a secret.
    pub fn is_secret(&self) -> bool {
        self.nodes().any(|node| node.secret)
    }

    /// Whether a secret or several are what stands in a field, whatever stands there.
    pub fn hides_field(&self, name: &str) -> bool {
        let of = |node: &'a Node| node.properties.get(name).copied().or(node.additional);
        self.nodes().filter_map(of).any(|id| self.shape.hides(id, &mut Vec::new()))
    }

    /// Whether a secret or several are what an item is, whatever stands there.
    pub fn hides_item(&self) -> bool {
        self.nodes().filter_map(|node| node.items).any(|id| self.shape.hides(id, &mut Vec::new()))
    }

    /// Whether it says nothing at all: there can be no such value.
    pub fn is_unknown(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether it says what may stand in the value.
    pub fn knows_inside(&self) -> bool {
        self.nodes().any(|node| !node.properties.is_empty() || node.additional.is_some() || node.items.is_some())
    }

    /// How a text there is read as a template. A text where any value may stand is a template text.
    pub fn template(&self) -> Option<TemplateKind> {
        let marked = self.nodes().find_map(|node| node.template);
        marked.or_else(|| self.nodes().any(Node::says_nothing).then_some(TemplateKind::Text))
    }

    /// What is expected there, in words.
    pub fn expected(&self) -> Option<&'a str> {
        self.nodes().find_map(|node| node.expected.as_deref())
    }

    /// The values there are, where they are few.
    pub fn options(&self) -> Vec<&'a Value> {
        self.nodes().flat_map(|node| &node.options).collect()
    }

    /// The number that is the only value there is.
    pub fn only(&self) -> Option<&'a Value> {
        match self.options()[..] {
            [only] if only.is_number() => Some(only),
            _ => None,
        }
    }
}

struct Reader<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    known: HashMap<*const Value, usize>,
}

impl<'a> Reader<'a> {
    /// The node of a subschema; made when first asked for, so that schemas may refer to themselves.
    fn read(&mut self, schema: &'a Value) -> usize {
        if let Some(id) = self.known.get(&std::ptr::from_ref(schema)) {
            return *id;
        }
        let id = self.nodes.len();
        self.known.insert(std::ptr::from_ref(schema), id);
        self.nodes.push(Node::default());
        let node = self.node(schema);
        self.nodes[id] = node;
        id
    }

    fn node(&mut self, schema: &'a Value) -> Node {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).map(Into::into);
        let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        let mut node = Node {
            types: texts(schema.get("type")),
            expected: text("x-expected"),
            description: text("description"),
            secret: schema.get("x-secret").is_some_and(|mark| mark.as_bool() != Some(false)),
            choice: flag("x-choice"),
            tree: schema.get("x-template").and_then(Value::as_str) == Some("tree"),
            template: match schema.get("x-template").and_then(Value::as_str) {
                Some("expression") => Some(TemplateKind::Expression),
                Some(_) => Some(TemplateKind::Text),
                None => None,
            },
            options: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            ..Node::default()
        };
        node.options.extend(schema.get("const").cloned());
        self.children(schema, &mut node);
        node
    }

    fn children(&mut self, schema: &'a Value, node: &mut Node) {
        if let Some(Value::Object(properties)) = schema.get("properties") {
            node.properties = properties.iter().map(|(name, field)| (name.as_str().into(), self.read(field))).collect();
        }
        node.additional =
            schema.get("additionalProperties").filter(|other| !other.is_boolean()).map(|other| self.read(other));
        // `true` says that any value may stand there.
        if schema.get("additionalProperties") == Some(&Value::Bool(true)) {
            node.additional = schema.get("additionalProperties").map(|other| self.read(other));
        }
        node.items = schema.get("items").map(|items| self.read(items));
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'));
        if let Some(target) = target.and_then(|pointer| self.root.pointer(pointer)) {
            node.also.push(self.read(target));
        }
        let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
        node.also.extend(list("allOf").map(|part| self.read(part)).collect::<Vec<_>>());
        node.either = list("oneOf").chain(list("anyOf")).map(|part| self.read(part)).collect();
    }
}

fn texts(value: Option<&Value>) -> Vec<Box<str>> {
    match value {
        Some(Value::String(text)) => vec![text.as_str().into()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(Into::into).collect(),
        _ => Vec::new(),
    }
}

/// The JSON Schema type of a value.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits(expected: &str, kind: &str) -> bool {
    expected == kind || (expected == "number" && kind == "integer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shape() -> Shape {
        Shape::new(&json!({
            "type": "object",
            "properties": {
                "auth": { "$ref": "#/$defs/Auth" },
                "secrets": { "type": ["string", "array"], "x-secret": "yes", "items": { "x-secret": "yes", "type": "string" } },
                "json": true,
                "marked": { "x-template": "tree" },
                "tree": { "type": "object", "additionalProperties": { "$ref": "#" } },
            },
            "$defs": { "Auth": { "x-choice": true, "type": "object", "properties": {
                "basic": { "type": "object" }, "key": { "type": "string", "description": "A key." },
            } } },
        }))
    }

    #[test]
    fn marks_are_found_through_references() {
        let shape = shape();
        let document = json!({ "auth": { "basic": {} }, "secrets": ["a"], "tree": { "x": { "secrets": "b" } } });
        let at = |pointer| shape.at(&document, pointer);
        assert!(at("/auth").is_choice() && !at("/auth/basic").is_choice());
        assert!(at("/secrets/0").is_secret() && !at("/auth").is_secret());
        assert!(at("/tree/x/secrets").is_secret());
        assert_eq!(at("/auth").choices(), ["basic", "key"]);
        assert_eq!(at("/auth").field_description("key"), Some("A key."));
    }

    #[test]
    fn the_place_of_a_secret_hides_whatever_stands_there() {
        let shape = shape();
        let document = json!({ "secrets": { "a": "b" }, "auth": { "key": [1] } });
        let root = shape.root(&document);
        assert!(root.hides_field("secrets") && !root.hides_field("auth") && !root.hides_field("json"));
        let odd = root.field("secrets", &document["secrets"]);
        assert!(!odd.knows_inside() && root.field("secrets", &json!(["a"])).knows_inside());
    }

    #[test]
    fn where_anything_may_stand_texts_are_templates_all_the_way_down() {
        let shape = shape();
        let document = json!({ "json": { "a": [{ "b": "x" }] }, "marked": { "a": [{ "b": "x" }] } });
        assert_eq!(shape.at(&document, "/json/a/0/b").template(), Some(TemplateKind::Text));
        assert_eq!(shape.at(&document, "/marked/a/0/b").template(), Some(TemplateKind::Text));
        assert_eq!(shape.at(&document, "").template(), None);
    }
}
