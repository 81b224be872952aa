//! Settings of the admin door that do not go together.

use std::time::Duration;

use super::gateway::KEY;
use super::{Findings, below};
use crate::definition::compile::OPERATOR;
use crate::definition::password;
use crate::definition::problem::Code;
use crate::definition::raw::gateway::{Admin, Person, Session};

/// Whether someone has to prove who they are.
pub(super) fn is_guarded(raw: &Admin) -> bool {
    raw.token.is_some() || raw.people.iter().next().is_some()
}

pub(super) fn check(raw: &Admin, found: &mut Findings<'_>) {
    if raw.token.as_ref().is_some_and(|token| token.0.expose().len() < KEY) {
        found.error(Code::OutOfRange, "/admin/token", "this token is shorter than 16 bytes");
    }
    for (name, raw) in raw.people.iter() {
        let at = below("/admin/people", name);
        if name == OPERATOR {
            found.error(Code::Conflict, &at, "`operator` is who has `admin.token`: give this person another name");
        }
        if matches!(name, "system" | "unknown") {
            let words = format!("`{name}` is what the audit log calls the gateway itself or strangers");
            found.error(Code::Conflict, &at, format!("{words}: give this person another name"));
        }
        person(raw, &at, found);
    }
    if let Some(raw) = raw.session {
        session(raw, found);
    }
}

fn person(raw: &Person, at: &str, found: &mut Findings<'_>) {
    if raw.password_hash.is_none() && raw.token.is_none() {
        found.error(Code::MissingField, at, "nobody can sign in as this person: give `password_hash` or `token`");
    }
    if raw.token.as_ref().is_some_and(|token| token.0.expose().len() < KEY) {
        found.error(Code::OutOfRange, &format!("{at}/token"), "this token is shorter than 16 bytes");
    }
    if let Some(Err(words)) = raw.password_hash.as_deref().map(password::read) {
        let problem = found.error(Code::BadFormat, &format!("{at}/password_hash"), words);
        problem.help = Some("Make one with `trunkline password`.".to_owned());
    }
}

fn session(raw: Session, found: &mut Findings<'_>) {
    let bounds = Duration::from_mins(1)..=Duration::from_hours(30 * 24);
    for (name, time) in [("idle", raw.idle), ("lifetime", raw.lifetime)] {
        if time.is_some_and(|time| !bounds.contains(&time.0)) {
            found.error(Code::OutOfRange, &format!("/admin/session/{name}"), "expected between 1m and 30d");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use serde_json::{Value, json};

    fn admin(admin: &Value) -> String {
        told(json!({
            "trunkline": 1, "public_url": "https://hooks.example.com", "integrations": ["./integrations"],
            "secrets": { "key": "${env:KEY}" }, "admin": admin,
        }))
        .concat()
    }

    #[test]
    fn people_prove_who_they_are() {
        let person = |person: Value| admin(&json!({ "people": { "ada": person } }));
        let hash = crate::definition::password::hash(b"correct horse", &[7; 16]).expect("a hash");
        assert_eq!(person(json!({ "role": "viewer", "password_hash": hash })), "");
        assert_eq!(person(json!({ "role": "operator", "token": "0123456789abcdef" })), "");
        assert!(person(json!({ "role": "viewer" })).contains("nobody can sign in"));
        assert!(person(json!({ "role": "viewer", "token": "short" })).contains("shorter than 16"));
        assert!(person(json!({ "role": "viewer", "password_hash": "hunter2" })).contains("argon2id"));
        for taken in ["operator", "system", "unknown"] {
            let people = json!({ "people": { taken: { "role": "viewer", "token": "0123456789abcdef" } } });
            assert!(admin(&people).contains("another name"), "{taken}");
        }
        assert!(admin(&json!({ "session": { "idle": "10s" } })).contains("between 1m and 30d"));
    }
}
