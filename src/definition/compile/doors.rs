//! The doors of the gateway file, compiled.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::gateway::{below, network};
use super::place::{Fault, Place};
use super::signed::pair;
use crate::definition::plan::gateway::{Door, DoorName, Doors, Listen, Network};
use crate::definition::problem::Code;
use crate::definition::raw::gateway as raw;
use crate::definition::raw::scalar::{Cidr, SocketMode};

fn written(listen: Option<&raw::Listen>, name: DoorName) -> Option<&raw::Door> {
    let listen = listen?;
    let door = match name {
        DoorName::Public => &listen.public,
        DoorName::Proxy => &listen.proxy,
        DoorName::Admin => &listen.admin,
    };
    door.as_ref().map(|door| &door.0)
}

/// Where a door listens. Paths are relative to `directory`.
pub(super) fn listen(
    raw: Option<&raw::Listen>,
    name: DoorName,
    directory: &Path,
    place: &Place<'_>,
) -> Result<Listen, Fault> {
    let usual = match name {
        DoorName::Public => "0.0.0.0:8080",
        DoorName::Proxy => "127.0.0.1:8081",
        DoorName::Admin => "127.0.0.1:8082",
    };
    let door = written(raw, name);
    let text = door.and_then(|door| door.address.as_deref()).unwrap_or(usual);
    let found = match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Listen::Unix(below(directory, path), mode(door.and_then(|door| door.mode.as_ref())))),
        None => text.parse::<SocketAddr>().ok().map(Listen::Tcp),
    };
    let words = || format!("`{text}` is not an address and port or `unix:PATH`");
    found.ok_or_else(|| place.at(name.as_str()).problem(Code::BadFormat, words()))
}

fn mode(raw: Option<&SocketMode>) -> u32 {
    raw.and_then(|mode| u32::from_str_radix(&mode.0, 8).ok()).unwrap_or(Listen::MODE)
}

/// The doors that speak TLS.
pub(super) fn secure(raw: Option<&raw::Listen>) -> Vec<DoorName> {
    let all = [DoorName::Public, DoorName::Proxy, DoorName::Admin];
    all.into_iter().filter(|name| written(raw, *name).is_some_and(|door| door.tls.is_some())).collect()
}

/// What of the doors counts without a restart.
pub(super) fn doors(raw: Option<&raw::Listen>, place: &Place<'_>) -> Result<Doors, Fault> {
    let door = |name: DoorName| match written(raw, name) {
        Some(raw) => door(raw, &place.at(name.as_str())),
        None => Ok(Door::default()),
    };
    Ok(Doors { public: door(DoorName::Public)?, proxy: door(DoorName::Proxy)?, admin: door(DoorName::Admin)? })
}

fn door(raw: &raw::Door, place: &Place<'_>) -> Result<Door, Fault> {
    let networks = |list: &[Cidr], at: Place<'_>| -> Result<Vec<Network>, Fault> {
        list.iter().enumerate().map(|(index, text)| network(text, &at.item(index))).collect()
    };
    let tls = raw.tls.as_ref().map(|tls| {
        let at = place.at("tls");
        pair(&tls.certificate, &tls.key.0).map_err(|(field, words)| at.at(field).problem(Code::BadFormat, words))
    });
    Ok(Door {
        tls: tls.transpose()?.map(Arc::new),
        proxy_protocol: networks(&raw.proxy_protocol, place.at("proxy_protocol"))?,
        forwarded: networks(&raw.forwarded, place.at("forwarded"))?,
    })
}
