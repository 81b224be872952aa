//! What the public door answers about connecting, for the API's document: pages for people, where services send them back
//! to, and what programs ask.
//!
//! These paths are routed by `connection::connect::door` and by no router of the admin door, so that they stand in a
//! table of their own. Tests compare it with the places of that door and with what it answers.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use super::document::{by_status, problem};
use crate::connection::connect::Progress;
use crate::respond::Refusal;

/// What any of these requests may be refused with.
const ALWAYS: [Refusal; 9] = [
    // Before anything else is looked at.
    Refusal::MalformedRequest,
    Refusal::RequestTimeout,
    Refusal::UriTooLong,
    Refusal::HeadersTooLarge,
    Refusal::NotFound,
    Refusal::BodyTooLarge,
    Refusal::RateLimited,
    Refusal::Internal,
    Refusal::Unavailable,
];
/// What those meet that need the store and the master key.
const KEPT: [Refusal; 2] = [Refusal::ConnectionUnusable, Refusal::StoreUnavailable];
/// What a link can be refused with.
const LINK: [Refusal; 2] = [Refusal::LinkInvalid, Refusal::LinkOver];

/// A parameter of a query: its name, whether it must be there, and what it says.
type Query = (&'static str, bool, &'static str);
const SIGNED: [Query; 7] = [
    ("id", true, "The link's id"),
    ("signature", true, "The signature over all of the link; nothing in it can be changed, left out or added"),
    ("connection", true, "The connection that is made, or connected anew"),
    ("return_to", false, "Where the person goes afterwards"),
    ("origin", false, "The origin of the page that is told how it ended"),
    ("scopes", false, "The scopes that are asked for in any case, with spaces between them"),
    ("optional", false, "The scopes that the person may add, likewise"),
];
const RESULT: Query = ("result", true, "The `result` of the link");

/// What is answered where all is well.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// A page.
    Page,
    /// The link's own address, for `Accept: text/plain` without `text/html`.
    Address,
    /// Another page of the flow, by `Location`.
    Onward,
    /// How it stands, as JSON.
    Progress,
    /// A file that pages load.
    File,
}

/// One operation.
struct Operation {
    method: &'static str,
    path: &'static str,
    name: &'static str,
    words: [&'static str; 2],
    query: &'static [Query],
    shown: &'static [Shown],
    refused: &'static [&'static [Refusal]],
}

const TABLE: [Operation; 9] = [
    Operation {
        method: "get",
        path: "/api/connect/{provider}",
        name: "permission",
        words: [
            "Shows what a connect link asks for",
            "The `url` of a link as it was made: its query is signed. Nothing is used up by it. `Accept: text/plain` without \
             `text/html` is answered with the address itself as text, and what is refused with a problem document; \
             everything else with a page. HEAD is answered as well.",
        ],
        query: &SIGNED,
        shown: &[Shown::Page, Shown::Address],
        refused: &[&KEPT, &LINK],
    },
    Operation {
        method: "post",
        path: "/api/connect/{provider}",
        name: "begin",
        words: [
            "Takes the form of that page, and goes on to the service",
            "Only from a page of the gateway's own, in the browser that looked at it. The fields are those of the page: scopes \
             (`scope`), the definition's inputs, and what the way of signing in wants.",
        ],
        query: &SIGNED,
        shown: &[Shown::Page, Shown::Onward],
        refused: &[&KEPT, &LINK, &[Refusal::FlowUnknown, Refusal::InvalidInput, Refusal::ServiceUnreachable]],
    },
    Operation {
        method: "get",
        path: "/api/auth/callback/{provider}",
        name: "callback",
        words: [
            "Takes a person back from the service",
            "The redirect address that is registered at the service. Which parameters there are is the service's to say \
             beside `state`. The state counts once, in the browser that it was given to.",
        ],
        query: &[
            ("state", false, "What the gateway gave the service; a callback without it belongs to no flow"),
            ("code", false, "What the tokens are asked for with; a definition can name another parameter"),
            ("iss", false, "The service's issuer (RFC 9207)"),
            ("error", false, "Why there is no code"),
            ("error_description", false, "The service's words"),
        ],
        shown: &[Shown::Onward],
        refused: &[&KEPT, &[Refusal::FlowUnknown, Refusal::LinkOver]],
    },
    Operation {
        method: "get",
        path: "/api/connect/{provider}/outcome",
        name: "outcome",
        words: [
            "Shows the person how it ended",
            "In the browser that it happened in, and in no other. HEAD is answered as well.",
        ],
        query: &[RESULT],
        shown: &[Shown::Page],
        refused: &[&KEPT, &[Refusal::FlowUnknown]],
    },
    Operation {
        method: "get",
        path: "/api/connect/{provider}/device",
        name: "device_page",
        words: [
            "Shows the code that the person types on another device",
            "Goes on to the outcome once it is there. HEAD is answered as well.",
        ],
        query: &[RESULT],
        shown: &[Shown::Page, Shown::Onward],
        refused: &[&KEPT, &[Refusal::FlowUnknown]],
    },
    Operation {
        method: "get",
        path: "/api/connect/{provider}/choose",
        name: "choices",
        words: ["Shows the sites or accounts of which the person chooses one", "HEAD is answered as well."],
        query: &[RESULT],
        shown: &[Shown::Page],
        refused: &[&KEPT, &[Refusal::FlowUnknown]],
    },
    Operation {
        method: "post",
        path: "/api/connect/{provider}/choose",
        name: "choose",
        words: ["Takes the choice", "Only from a page of the gateway's own; `choice` is the number of the one chosen."],
        query: &[RESULT],
        shown: &[Shown::Onward],
        refused: &[&KEPT, &[Refusal::FlowUnknown, Refusal::LinkOver, Refusal::InvalidInput]],
    },
    Operation {
        method: "get",
        path: "/api/connect/{provider}/result",
        name: "progress",
        words: [
            "How a link stands, for the page that opened it",
            "Pages of `connect.origins` may read it. It tells a word and an error code; the rest is told by \
             `/api/connect-links/{result}`.",
        ],
        query: &[
            RESULT,
            ("wait", false, "So many seconds for it to end: 25 at the most"),
            ("seen", false, "`failed`: answered only when more has come of it than the failure"),
        ],
        shown: &[Shown::Progress],
        refused: &[&KEPT, &[Refusal::InvalidInput]],
    },
    Operation {
        method: "get",
        path: "/api/connect/-/{file}",
        name: "file",
        words: [
            "A file that these pages load, and `trunkline-connect.js` for pages of applications",
            "HEAD is answered as well.",
        ],
        query: &[],
        shown: &[Shown::File],
        refused: &[],
    },
];

/// Adds the paths to a document's, and the schemas that they name.
pub fn add(document: &mut Value) {
    if let Some(paths) = document["paths"].as_object_mut() {
        for operation in &TABLE {
            let item = paths.entry(operation.path).or_insert_with(|| json!({ "servers": [server()] }));
            item[operation.method] = operation.described();
        }
    }
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        let schema = serde_json::to_value(Progress::schema()).unwrap_or_default();
        schemas.insert("ConnectProgress".to_owned(), schema);
    }
}

/// The public door has an address of its own.
fn server() -> Value {
    let public_url =
        json!({ "default": "https://connect.example.com", "description": "`public_url` of the gateway file" });
    json!({ "url": "{public_url}", "description": "The public door", "variables": { "public_url": public_url } })
}

impl Operation {
    fn described(&self) -> Value {
        let [summary, description] = self.words;
        let mut described = json!({
            "tags": ["connect"],
            "operationId": format!("connect_{}", self.name),
            "summary": summary,
            "description": description,
            "parameters": self.parameters(),
            "responses": self.answers(),
            "security": [],
        });
        if self.method == "post" {
            let schema = json!({ "type": "object", "additionalProperties": { "type": "string" } });
            described["requestBody"] =
                json!({ "required": true, "content": { "application/x-www-form-urlencoded": { "schema": schema } } });
        }
        described
    }

    fn parameters(&self) -> Value {
        let text = json!({ "type": "string" });
        let of_file = self.path.contains("{file}");
        let part = if of_file { ("file", "Its name") } else { ("provider", "The integration's id") };
        let in_path = json!({ "name": part.0, "in": "path", "required": true, "description": part.1, "schema": text });
        let in_query = self.query.iter().map(|(name, required, says)| {
            json!({ "name": name, "in": "query", "required": required, "description": says, "schema": text })
        });
        std::iter::once(in_path).chain(in_query).collect()
    }

    fn answers(&self) -> Value {
        let mut answers = Map::new();
        let (mut content, mut headers) = (Map::new(), Map::new());
        let text = json!({ "schema": { "type": "string" } });
        for shown in self.shown {
            match shown {
                Shown::Page => _ = content.insert("text/html".to_owned(), text.clone()),
                Shown::Address => {
                    content.insert("text/plain".to_owned(), text.clone());
                    let says = "`Accept`, where the answer is text";
                    headers.insert("Vary".to_owned(), json!({ "description": says, "schema": { "type": "string" } }));
                }
                Shown::Progress => {
                    let schema = json!({ "$ref": "#/components/schemas/ConnectProgress" });
                    content.insert("application/json".to_owned(), json!({ "schema": schema }));
                }
                Shown::File => {
                    content.extend(["text/css", "text/javascript"].map(|kind| (kind.to_owned(), text.clone())));
                }
                Shown::Onward => {
                    let place = json!({ "description": "Where to", "required": true, "schema": { "type": "string" } });
                    let words = "Goes on to the next page, or to the outcome";
                    answers.insert("303".to_owned(), json!({ "description": words, "headers": { "Location": place } }));
                }
            }
        }
        if !content.is_empty() {
            answers.insert("200".to_owned(), json!({ "description": "OK", "headers": headers, "content": content }));
        }
        let named = self.refused.iter().copied().flatten();
        for (status, codes) in by_status(ALWAYS.iter().chain(named).copied()) {
            answers.insert(status.to_string(), self.refusal(status, &codes));
        }
        Value::Object(answers)
    }

    /// A refusal: a page where people look at pages, and a problem document for programs.
    fn refusal(&self, status: u16, codes: &BTreeSet<&'static str>) -> Value {
        let mut refusal = problem(status, codes);
        if self.shown.iter().any(|shown| matches!(shown, Shown::Page | Shown::Onward)) {
            refusal["content"]["text/html"] = json!({ "schema": { "type": "string" } });
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::connect::door::{Place, place};

    /// A place that is added here wants operations in the table.
    const fn methods(place: Place<'_>) -> &'static [&'static str] {
        match place {
            Place::Permission(_) | Place::Choose(_) => &["get", "post"],
            Place::Asset(_) | Place::Callback(_) | Place::Outcome(_) | Place::Device(_) | Place::Result(_) => &["get"],
        }
    }

    #[test]
    fn the_table_has_every_place_of_the_public_door_with_its_methods() {
        let mut places = BTreeSet::new();
        for operation in &TABLE {
            let path = operation.path.replace("{provider}", "shop").replace("{file}", "connect.css");
            let leads = place(&path).expect(operation.path);
            assert!(methods(leads).contains(&operation.method), "{} {}", operation.method, operation.path);
            places.insert(format!("{leads:?}"));
        }
        assert_eq!(places.len(), 7, "{places:?}");
        let listed: usize = ["", "/outcome", "/choose", "/device", "/result"]
            .map(|page| format!("/api/connect/shop{page}"))
            .iter()
            .map(String::as_str)
            .chain(["/api/auth/callback/shop", "/api/connect/-/connect.css"])
            .map(|path| place(path).map_or(0, |place| methods(place).len()))
            .sum();
        assert_eq!(listed, TABLE.len());
    }
}
