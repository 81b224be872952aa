//! Values that a sign-in saves and later calls are addressed by.
//!
//! What a definition saves may become part of an address: a whole base URL, or a label of a host. A made-up
//! value must then be one that the definition's own `hosts` allow. Called by `token`, `consent` and `service`.

use serde_json::Value;

use crate::definition::plan::Integration;
use crate::definition::plan::oauth2::OAuth2;
use crate::definition::plan::request::Target;
use crate::mock::paths::{Read, Step, last_key, reads};
use crate::mock::shape;
use crate::template::{Expr, Segment, Text};

/// What is known of saved values by their use.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Names whose values begin an address, and the origin they get.
    origins: Vec<String>,
    /// Names whose values are part of a host.
    labels: Vec<String>,
    host: String,
}

impl Saved {
    /// How an integration uses what its sign-in saves.
    pub fn new(integration: &Integration, oauth2: &OAuth2) -> Self {
        let mut known = Self { host: host(integration), ..Self::default() };
        let calls = oauth2.token.iter().chain(oauth2.refresh.iter().flatten()).map(|call| &call.request);
        let others = oauth2.identity.iter().map(|identity| &identity.request);
        let others = others.chain(&oauth2.revoke).chain(oauth2.discover.iter().map(|step| &step.request));
        for request in calls.chain(others) {
            if let Target::Url(url) = &request.target {
                known.read(url);
            }
        }
        if let Some(api) = &integration.api {
            known.read(&api.base_url);
        }
        known
    }

    fn read(&mut self, address: &Text) {
        let mut before = String::new();
        for segment in address.segments().unwrap_or_default().iter() {
            match segment {
                Segment::Literal(text) => before.push_str(text),
                Segment::Slot(expr) => {
                    let name = expr.source().trim().strip_prefix("saved.").unwrap_or_default().to_owned();
                    let in_host = before.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
                    if !name.is_empty() && before.is_empty() {
                        self.origins.push(name);
                    } else if !name.is_empty() && in_host {
                        self.labels.push(name);
                    }
                    before.push('x');
                }
            }
        }
    }

    /// A value that may be saved under this name, read from a place of this name.
    pub fn value(&self, name: &str, place: &str) -> Value {
        if self.origins.iter().any(|known| known == name) {
            Value::from(format!("https://{}", self.host))
        } else if self.labels.iter().any(|known| known == name) {
            Value::from("mock1")
        } else {
            shape::plausible(place, 1)
        }
    }

    /// The places that saving reads, with the values they must have where it matters.
    pub fn reads(&self, save: &[(String, Expr)]) -> Vec<Read> {
        let mut found = Vec::new();
        for (name, expr) in save {
            let matters = self.origins.contains(name) || self.labels.contains(name);
            for mut read in reads(expr.source()) {
                if matters && read.equals.is_none() {
                    let place = last_key(&read.steps).unwrap_or("value").to_owned();
                    read.equals = Some(self.value(name, &place));
                }
                found.push(read);
            }
        }
        found
    }

    /// The places that choosing reads, below the list of choices.
    pub fn choice_reads(&self, step: &crate::definition::plan::oauth2::Discover) -> Vec<Read> {
        let (mut list, mut filters) = (Vec::new(), Vec::new());
        if let Some(choices) = &step.choices {
            let first = reads(choices.source()).into_iter().find(|read| read.root == "body");
            list = first.map(|read| read.steps).unwrap_or_default();
            list.push(Step::Item);
            filters = selected(choices.source());
        }
        let below = |read: Read| {
            let steps = list.iter().cloned().chain(read.steps).collect();
            Read { root: "body".to_owned(), steps, equals: read.equals }
        };
        let label = step.label.iter().flat_map(|label| reads(label.source()));
        let own = self.reads(&step.set).into_iter().chain(label).chain(filters);
        own.filter(|read| read.root == "choice").map(below).collect()
    }
}

/// What `selectattr('name', 'eq', 'value')` wants of an item.
fn selected(source: &str) -> Vec<Read> {
    let filters = source.split("selectattr(").skip(1).filter_map(|rest| rest.split_once(')'));
    let read = |(arguments, _): (&str, &str)| {
        let words: Vec<_> = arguments.split(',').map(|word| word.trim().trim_matches(['\'', '"']).to_owned()).collect();
        let [name, test, value] = <[String; 3]>::try_from(words).ok()?;
        let steps = vec![Step::Key(name)];
        (test == "eq").then(|| Read { root: "choice".to_owned(), steps, equals: Some(Value::from(value)) })
    };
    filters.filter_map(read).collect()
}

/// A host that the definition allows for what is learned at run time.
fn host(integration: &Integration) -> String {
    let allowed = integration.api.as_ref().and_then(|api| api.hosts.first());
    match allowed {
        Some(pattern) if pattern.wildcard => format!("mock.{}", pattern.name),
        Some(pattern) => pattern.name.to_string(),
        None => "mock.example.com".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_filtered_choice_is_one_that_the_filter_takes() {
        let found = selected("body.accounts | selectattr('product', 'eq', 'bc3') | list");
        let expected = Read {
            root: "choice".to_owned(),
            steps: vec![Step::Key("product".to_owned())],
            equals: Some(json!("bc3")),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn what_becomes_an_address_is_one_that_is_allowed() {
        let mut saved = Saved { host: "mock.salesforce.com".to_owned(), ..Saved::default() };
        for text in ["{{ saved.instance_url }}/x", "https://{{ saved.dc }}.api.example/{{ saved.id }}"] {
            saved.read(&Text::compile(text).expect("compiles"));
        }
        assert_eq!(saved.value("instance_url", "instance_url"), json!("https://mock.salesforce.com"));
        assert_eq!(saved.value("dc", "dc"), json!("mock1"));
        assert_eq!(saved.value("id", "id"), json!("mock_1"));
    }
}
