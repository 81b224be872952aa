//! Generations in the audit log: what files brought, whoever wrote them, is known after the process as well.
//!
//! Written by [`super::Reloader`] before a generation comes into force. A log that cannot be written keeps none from
//! it: the files are the truth, and the log of the process says what is missing here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::error;

use crate::definition::history::Changes;
use crate::definition::live::Generation;
use crate::definition::plan::gateway::Account;
use crate::definition::workspace::Deployment;
use crate::store::Audit;
use crate::store::model::AuditEntry;

/// The most of one kind that an entry names.
const NAMES: usize = 50;
/// The most bytes of one name.
const NAME: usize = 200;

/// The entry for a generation that comes into force after another one, or as the first of a process.
pub fn entry(previous: Option<&Generation>, next: &Generation, changes: &Changes) -> AuditEntry {
    let refused: Vec<_> = next.rejected().map(|file| file.file.display().to_string()).collect();
    let before = previous.map(|last| last.gateway.admin.accounts.as_slice()).unwrap_or_default();
    AuditEntry {
        at: next.since,
        actor: "system".to_owned(),
        action: "config.applied".to_owned(),
        target: "config".to_owned(),
        detail: json!({
            "generation": next.number,
            "fingerprint": next.fingerprint.to_string(),
            "integrations": next.integrations.len(),
            "added": names(&changes.added),
            "changed": names(&changes.changed),
            "removed": names(&changes.removed),
            "files": names(&changes.files),
            "refused": names(&refused),
            "accounts": accounts(before, &next.gateway.admin.accounts),
        }),
    }
}

/// Writes an entry. One that is not written in time may come later, and nobody waits for it.
pub async fn write(audit: &Arc<dyn Audit>, entry: AuditEntry, limit: Duration) {
    let generation = entry.detail["generation"].clone();
    let why = match tokio::time::timeout(limit, audit.append(entry)).await {
        Ok(Ok(_)) => return,
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => format!("it was not written within {limit:?}"),
    };
    error!("configuration generation {generation} comes into force, and is not in the audit log: {why}");
}

/// The files whose content is not what it was; those that are new or gone as well.
pub fn files(before: &Deployment, next: &Deployment) -> Vec<String> {
    // By name, byte for byte: hashing a path part by part takes long with many.
    let digests = |of| -> HashMap<&OsStr, [u8; 32]> {
        Deployment::contents(of).map(|content| (content.file.as_os_str(), content.digest)).collect()
    };
    let (before, next) = (digests(before), digests(next));
    let other = before.keys().chain(next.keys()).filter(|file| before.get(*file) != next.get(*file));
    let other: BTreeSet<_> = other.map(|file| file.display().to_string()).collect();
    other.into_iter().collect()
}

/// The accounts of the admin door that are not what they were. One whose password or token alone is another has the
/// same role twice.
fn accounts(before: &[Account], next: &[Account]) -> Value {
    let by_name = |of| -> BTreeMap<&str, &Account> { <[Account]>::iter(of).map(|one| (&*one.name, one)).collect() };
    let (before, next) = (by_name(before), by_name(next));
    let all: BTreeSet<&str> = before.keys().chain(next.keys()).copied().collect();
    let other: Vec<&str> = all.into_iter().filter(|name| before.get(name) != next.get(name)).collect();
    let role = |of: &BTreeMap<&str, &Account>, name: &str| of.get(name).map(|account| account.role);
    let shown = |name: &&str| json!({ "name": cut(name), "from": role(&before, name), "to": role(&next, name) });
    let mut list: Vec<Value> = other.iter().take(NAMES).map(shown).collect();
    list.extend(more(other.len()));
    list.into()
}

/// The first of them, and how many more there are.
fn names<T: fmt::Display>(all: &[T]) -> Value {
    let mut list: Vec<Value> = all.iter().take(NAMES).map(|name| cut(&name.to_string()).into()).collect();
    list.extend(more(all.len()));
    list.into()
}

fn more(all: usize) -> Option<Value> {
    all.checked_sub(NAMES).filter(|more| *more > 0).map(|more| format!("and {more} more").into())
}

fn cut(name: &str) -> String {
    name.split_at(name.floor_char_boundary(NAME)).0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::gateway::Role;

    fn account(name: &str, role: Role, token: u8) -> Account {
        Account { name: name.into(), role, password: None, token: Some([token; 32]) }
    }

    #[test]
    fn accounts_that_came_changed_or_went_are_told_with_their_roles_and_nothing_secret() {
        let before =
            [account("ada", Role::Operator, 1), account("bob", Role::Viewer, 2), account("cy", Role::Viewer, 3)];
        let next = [account("bob", Role::Operator, 2), account("cy", Role::Viewer, 4), account("dee", Role::Viewer, 5)];
        assert_eq!(
            accounts(&before, &next),
            json!([
                { "name": "ada", "from": "operator", "to": null },
                { "name": "bob", "from": "viewer", "to": "operator" },
                { "name": "cy", "from": "viewer", "to": "viewer" },
                { "name": "dee", "from": null, "to": "viewer" },
            ])
        );
        assert_eq!(accounts(&next, &next), json!([]));
    }

    #[test]
    fn an_entry_is_bounded_whatever_changes() {
        let many: Vec<_> = (0..NAMES + 7).map(|number| format!("{number}{}", "ä".repeat(NAME))).collect();
        let told = names(&many);
        let told = told.as_array().unwrap();
        assert_eq!((told.len(), &told[NAMES]), (NAMES + 1, &json!("and 7 more")));
        assert!(told.iter().all(|name| name.as_str().unwrap().len() <= NAME));
        assert_eq!(names(&many[..NAMES]).as_array().unwrap().len(), NAMES);
    }
}
