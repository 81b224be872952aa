//! The variables that templates see, by the place they stand in.
//!
//! A field's schema names its place (`x-sees`); fields below inherit it. A field marked `x-answer`
//! also sees the answer to its request. `check` refuses any other name, the manual and editors show
//! the list, and the rooms that fill templates in define exactly these.

/// The variables of one place.
#[derive(Debug)]
pub struct Seen {
    /// The place, as `x-sees` names it.
    pub place: &'static str,
    /// Names and meanings.
    pub variables: &'static [Variable],
}

/// A name and its meaning.
pub type Variable = (&'static str, &'static str);

const INPUT: Variable = ("input", "what the connection told, by the names under `inputs`");
const GIVEN: Variable = ("input", "what the caller or rule gave, over what the connection told");
const SAVED: Variable = ("saved", "values kept from earlier answers");
const CONNECTION: Variable = ("connection", "the connection: `id`");
const API_KEY: Variable = ("api_key", "the connection's key");
const USERNAME: Variable = ("username", "the connection's name");
const PASSWORD: Variable = ("password", "the connection's password");
const TOKEN: Variable = ("token", "the connection's tokens: `access`, `refresh`, or by name as in `token.user.access`");
const CLIENT: Variable = ("client", "the application's own credentials: `id`, `secret`");
const SCOPES: Variable = ("scopes", "the scopes asked for, by token name, as in `scopes.user`");
const BODY: Variable = ("body", "the body: parsed where it is JSON or a form, else its text");
const HEADERS: Variable = ("headers", "headers by name, in any case");
const QUERY: Variable = ("query", "the query's parameters by name");
const METHOD: Variable = ("method", "the request's method in capitals");
const EVENT: Variable = (
    "event",
    "the event: `id`, `type`, `integration`, `connection` (of the managed endpoint it came to, else none), `delivery_id`, `received_at`",
);
const NOW: Variable = ("now", "the present moment, in seconds since 1970; `now | rfc3339` writes it out");
const UUID: Variable = ("uuid", "a random UUID, the same wherever one call names it");
const NONCE: Variable = ("nonce", "128 random bits in hexadecimal, the same wherever one call names it");
const REQUEST: Variable = (
    "request",
    "the call as it is sent: `method`, `host` (with its port where it is not the usual one), `path`, `query`",
);
const STATUS: Variable = ("status", "the answer's status, a number");
const CURSOR: Variable = ("cursor", "where the last run ended; none in a full pass");

/// What fields marked `x-answer` see besides the variables of their place.
pub const ANSWER: &[Variable] = &[BODY, HEADERS, STATUS];

/// What headers of an API see, its credential among them.
const API_HEADER: &[Variable] =
    &[API_KEY, USERNAME, PASSWORD, TOKEN, CLIENT, INPUT, SAVED, CONNECTION, NOW, UUID, NONCE, REQUEST];

/// Every place.
pub const PLACES: &[Seen] = &[
    Seen { place: "address", variables: &[INPUT, SAVED, CONNECTION] },
    Seen { place: "credential", variables: API_HEADER },
    Seen { place: "api-header", variables: API_HEADER },
    Seen {
        place: "call",
        variables: &[GIVEN, SAVED, CONNECTION, API_KEY, USERNAME, PASSWORD, TOKEN, CLIENT, NOW, UUID, NONCE],
    },
    Seen {
        place: "subscription",
        variables: &[
            GIVEN,
            ("saved", "values kept from earlier answers, of this connection and of this endpoint"),
            ("webhook", "the endpoint: `url`, `secret`, `events` (the types it is to have, or all that are declared)"),
            CONNECTION,
            API_KEY,
            USERNAME,
            PASSWORD,
            TOKEN,
            CLIENT,
            NOW,
            UUID,
            NONCE,
        ],
    },
    Seen {
        place: "sign-in",
        variables: &[
            INPUT,
            SAVED,
            CONNECTION,
            CLIENT,
            TOKEN,
            SCOPES,
            QUERY,
            NOW,
            UUID,
            NONCE,
            ("code", "the authorization code"),
            ("state", "the state of the flow"),
            ("redirect_uri", "the callback's address"),
            ("code_verifier", "the PKCE verifier"),
            ("assertion", "the signed assertion"),
        ],
    },
    Seen { place: "choice", variables: &[("choice", "the item of the list"), INPUT, SAVED, BODY, HEADERS, STATUS] },
    Seen { place: "transform-request", variables: &[BODY, HEADERS, QUERY, INPUT, CONNECTION, SAVED] },
    Seen { place: "transform-response", variables: &[BODY, HEADERS, STATUS, QUERY, INPUT, CONNECTION, SAVED] },
    Seen { place: "answer", variables: ANSWER },
    Seen { place: "webhook", variables: &[BODY, HEADERS, QUERY, METHOD] },
    Seen { place: "reply", variables: &[BODY, HEADERS, QUERY, METHOD, ("digest", "the value that `digest` makes")] },
    Seen {
        place: "signed",
        variables: &[
            ("body", "the body, byte for byte; `body.name` is a field of it"),
            ("timestamp", "the timestamp as it was sent"),
            METHOD,
            ("url", "the address as the service was told it: `public_url`, path and query"),
            ("path", "path and query as they were sent"),
            ("url_without_query", "the address without its query"),
            ("url_decoded", "the address with its percent-encoding undone"),
            HEADERS,
            QUERY,
            ("form", "a form body's fields by name"),
            ("form_sorted", "a form body's names and values, sorted by name, one after the other"),
            ("secret", "the secret itself, for plain digests"),
            ("body_crc32", "CRC-32 of the body in decimal"),
            ("headers_listed", "the headers that `listed_headers` names, as `name:value` joined by `;`"),
            ("lines", "the JSON fields that `lines` names, as a line of the name and a line of the value each"),
        ],
    },
    Seen { place: "rule", variables: &[EVENT, BODY, HEADERS, QUERY] },
    Seen { place: "message", variables: &[EVENT] },
    Seen { place: "sync", variables: &[CURSOR, INPUT, SAVED, CONNECTION, API_KEY, USERNAME, PASSWORD, TOKEN] },
    Seen { place: "record", variables: &[("record", "the record"), INPUT, SAVED, BODY, HEADERS, STATUS] },
];

/// The variables of a place.
pub fn of_place(place: &str) -> &'static [Variable] {
    PLACES.iter().find(|seen| seen.place == place).map_or(&[], |seen| seen.variables)
}

/// Fields of variables whose fields are all known.
pub const FIELDS: &[(&str, &[&str])] = &[
    ("event", &["id", "type", "integration", "connection", "delivery_id", "received_at"]),
    ("connection", &["id"]),
    ("client", &["id", "secret"]),
    ("webhook", &["url", "secret", "events"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_names_a_variable_twice() {
        for seen in PLACES {
            let mut names: Vec<_> = seen.variables.iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), seen.variables.len(), "{}", seen.place);
        }
    }
}
