//! Who may use the admin door, compiled.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::gateway::address;
use super::place::{Fault, Place};
use crate::definition::plan::gateway::{Account, Admin, Role, Session};
use crate::definition::raw::gateway as raw;
use crate::definition::raw::scalar::SecretText;

/// What the account of `admin.token` is called.
pub const OPERATOR: &str = "operator";

pub(super) fn admin(raw: Option<&raw::Admin>, place: &Place<'_>) -> Result<Admin, Fault> {
    let Some(raw) = raw else { return Ok(Admin::default()) };
    let url = raw.url.as_ref().map(|text| address(text, &place.at("url"))).transpose()?;
    let outside = url.as_ref().and_then(|url| url.host_str()).map(str::to_ascii_lowercase);
    let operator = raw.token.as_ref().map(|token| Account {
        name: Arc::from(OPERATOR),
        role: Role::Operator,
        password: None,
        token: Some(digest(token)),
    });
    let usual = Session::default();
    let session = raw.session.map_or(usual, |session| Session {
        idle: session.idle.map_or(usual.idle, |time| time.0),
        lifetime: session.lifetime.map_or(usual.lifetime, |time| time.0),
    });
    Ok(Admin {
        accounts: operator.into_iter().chain(raw.people.iter().map(account)).collect(),
        hosts: raw.hosts.iter().map(|host| host.to_ascii_lowercase()).chain(outside).collect(),
        url,
        session,
        read_only: raw.read_only,
    })
}

fn account((name, raw): (&str, &raw::Person)) -> Account {
    Account {
        name: Arc::from(name),
        role: match raw.role {
            raw::Role::Viewer => Role::Viewer,
            raw::Role::Operator => Role::Operator,
        },
        password: raw.password_hash.as_deref().map(Arc::from),
        token: raw.token.as_ref().map(digest),
    }
}

fn digest(token: &SecretText) -> [u8; 32] {
    Sha256::digest(token.0.expose()).into()
}
