//! Settings of the gateway file that do not go together.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::{Findings, admin, below, rules};
use crate::definition::compile::secrets::vault_server;
use crate::definition::compile::{egress_proxy, exempt, pair, read_network, read_origin};
use crate::definition::load::reference::{Part, Reference, is_secret_path as is_path, parts};
use crate::definition::problem::Code;
use crate::definition::raw::gateway::{Door, Gateway, MasterKey, Mode, Secrets, Transit};

/// The fewest bytes of a key or token that cannot be found by trying.
pub(super) const KEY: usize = 16;

pub(super) fn check(raw: &Gateway, found: &mut Findings<'_>) {
    let development = matches!(raw.mode, Some(Mode::Development));
    public_url(raw, development, found);
    listen(raw, found);
    if let Some(egress) = &raw.egress {
        if let Err(words) = egress_proxy(&egress.proxy.0) {
            found.error(Code::BadFormat, "/egress/proxy", words);
        }
        if let Err(words) = exempt(&egress.no_proxy.0) {
            found.error(Code::BadFormat, "/egress/no_proxy", words);
        }
    }
    secrets(raw, development, found);
    callers(raw, development, found);
    if let Some(raw) = &raw.admin {
        admin::check(raw, found);
    }
    if let Some(trace) = &raw.trace {
        match plain_address(&trace.otlp.endpoint) {
            Ok(url) if url.query().is_none() => {}
            Ok(_) => _ = found.error(Code::BadFormat, "/trace/otlp/endpoint", "this address has a query"),
            Err(message) => _ = found.error(Code::BadFormat, "/trace/otlp/endpoint", message),
        }
    }
    connect(raw, development, found);
    rules::check(&raw.rules, found);
    rules::own(&raw.rules, found);
    private_networks(raw, found);
    destinations(raw, found);
    if raw.secrets.is_none() && !development {
        let problem =
            found.warning(Code::MissingField, "/secrets", "there is no master key, so no credential can be kept");
        problem.help = Some("Make one with `trunkline keys generate`, and name it under `secrets.key`.".to_owned());
    }
}

fn callers(raw: &Gateway, development: bool, found: &mut Findings<'_>) {
    found.duplicates("/callers", "callers", raw.callers.iter().map(|caller| caller.id.0.as_str()));
    for (index, caller) in raw.callers.iter().enumerate() {
        let at = format!("/callers/{index}");
        if caller.key.0.expose().len() < KEY && !development {
            let problem = found.error(Code::OutOfRange, &format!("{at}/key"), "this key is shorter than 16 bytes");
            problem.help = Some("Make one with `openssl rand -hex 32`.".to_owned());
        }
        if caller.allow.is_empty() {
            found.warning(
                Code::Conflict,
                &format!("{at}/allow"),
                format!("caller `{}` may do nothing: it has no `allow`", caller.id.0),
            );
        }
    }
}

fn private_networks(raw: &Gateway, found: &mut Findings<'_>) {
    for (index, network) in raw.private_networks.iter().enumerate() {
        if read_network(&network.0).is_none() {
            let at = format!("/private_networks/{index}");
            let problem = found.error(Code::BadFormat, &at, format!("`{}` is not an address range", network.0));
            problem.help = Some("Write the first address and how many bits count, such as 10.0.0.0/8.".to_owned());
        }
    }
}

fn destinations(raw: &Gateway, found: &mut Findings<'_>) {
    for (id, destination) in raw.destinations.iter() {
        let at = below("/destinations", id);
        if let Err(message) = plain_address(&destination.url) {
            found.error(Code::BadFormat, &format!("{at}/url"), message);
        }
        if destination.signing_secret.0.is_empty() {
            let at = format!("{at}/signing_secret");
            let problem = found.warning(Code::MissingField, &at, format!("messages to `{id}` are not signed"));
            problem.help = Some("Give a `signing_secret`, so that the application knows who speaks.".to_owned());
        }
    }
}

/// A key file that is not there yet keeps `serve` from starting; in development mode it is made.
fn key_file(secrets: &Secrets, found: &mut Findings<'_>) {
    let MasterKey::Reference(text) = &secrets.key.0 else { return };
    let [Part::Reference(Reference::File(path), _)] = parts(text.0.expose())[..] else { return };
    let home = found.document.file.parent().unwrap_or(Path::new(""));
    if !home.join(path).exists() {
        let message = format!("the key file `{path}` does not exist, so the gateway does not start");
        let problem = found.warning(Code::MissingReference, "/secrets/key", message);
        problem.help = Some("Make it with `trunkline keys generate`; only in development mode is it made.".to_owned());
    }
}

fn secrets(raw: &Gateway, development: bool, found: &mut Findings<'_>) {
    let Some(secrets) = &raw.secrets else { return };
    if !development {
        key_file(secrets, found);
    }
    let Some(vault) = &secrets.vault else {
        if let MasterKey::Transit(_) = &secrets.key.0 {
            let message = "Transit is an engine of a Vault server, and none is named";
            let problem = found.error(Code::MissingField, "/secrets/key/transit", message);
            problem.help = Some("Name one under `secrets.vault`.".to_owned());
        }
        return;
    };
    if let MasterKey::Transit(Transit { key, mount }) = &secrets.key.0 {
        for (name, path) in [("key", Some(key)), ("mount", mount.as_ref())] {
            if path.is_some_and(|path| !is_path(path)) {
                let at = format!("/secrets/key/transit/{name}");
                found.error(Code::BadFormat, &at, format!("`{name}` has letters, digits and `-_./`"));
            }
        }
    }
    if let Err(message) = vault_server(vault) {
        found.error(Code::BadFormat, "/secrets/vault", message);
    }
    let far = Url::parse(&vault.url)
        .is_ok_and(|url| url.scheme() == "http" && !url.host_str().is_some_and(super::values::is_loopback));
    if far && !development {
        let problem = found.error(Code::Conflict, "/secrets/vault/url", "plain HTTP would send secrets unprotected");
        problem.help = Some("Write the https address, and the server's `ca` where it has its own.".to_owned());
    }
    let least = std::time::Duration::from_secs(1);
    for (name, time) in [("poll", vault.poll), ("timeout", vault.timeout)] {
        if time.is_some_and(|time| time.0 < least) && !development {
            found.error(Code::OutOfRange, &format!("/secrets/vault/{name}"), "this is less than a second");
        }
    }
}

fn public_url(raw: &Gateway, development: bool, found: &mut Findings<'_>) {
    match plain_address(&raw.public_url) {
        Err(message) => _ = found.error(Code::BadFormat, "/public_url", message),
        Ok(url) if url.scheme() == "http" && !development => {
            let problem = found.error(Code::Conflict, "/public_url", "services must reach the public door by https");
            problem.help = Some("Write the https address; plain HTTP is for `mode: development`.".to_owned());
        }
        Ok(url) if url.query().is_some() => _ = found.error(Code::BadFormat, "/public_url", "this address has a query"),
        Ok(_) => {}
    }
}

fn plain_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("this is not an address: {error}"))?;
    let known = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match (known, bare) {
        (true, true) => Ok(url),
        (false, _) => Err("expected an http or https address".to_owned()),
        (true, false) => Err("an address has no name, password or fragment in it".to_owned()),
    }
}

/// The longest life of a connect link: long enough to be sent to a customer before a weekend.
const LINK_TTL: Duration = Duration::from_hours(7 * 24);

fn connect(raw: &Gateway, development: bool, found: &mut Findings<'_>) {
    let Some(connect) = &raw.connect else { return };
    for (index, text) in connect.origins.iter().enumerate() {
        let at = format!("/connect/origins/{index}");
        match read_origin(text) {
            None => {
                let problem = found.error(Code::BadFormat, &at, format!("`{text}` is not an origin"));
                problem.help = Some("Write scheme, host and port alone, such as https://app.example.com.".to_owned());
            }
            Some(origin) if origin.starts_with("http:") && !development => {
                let problem = found.error(Code::Conflict, &at, "pages of your own must be at https");
                problem.help = Some("Plain HTTP is for `mode: development`.".to_owned());
            }
            Some(_) => {}
        }
    }
    if connect.link_ttl.is_some_and(|ttl| !(Duration::from_mins(1)..=LINK_TTL).contains(&ttl.0)) {
        found.error(Code::OutOfRange, "/connect/link_ttl", "a connect link lives between 1m and 7d");
    }
}

fn listen(raw: &Gateway, found: &mut Findings<'_>) {
    let Some(listen) = &raw.listen else { return };
    let doors = [("public", &listen.public), ("proxy", &listen.proxy), ("admin", &listen.admin)];
    let doors = doors.map(|(name, door)| (name, door.as_ref().map(|door| &door.0)));
    let places = doors.map(|(name, door)| (name, door.and_then(|door| door.address.as_ref())));
    for (name, door) in doors {
        let at = format!("/listen/{name}");
        if let Some(settings) = door {
            door_settings(name, settings, &at, found);
        }
        let Some(text) = door.and_then(|door| door.address.as_ref()) else { continue };
        let address = text.parse::<SocketAddr>();
        if address.is_err() && text.strip_prefix("unix:").is_none_or(str::is_empty) {
            let problem = found.error(Code::BadFormat, &at, "this is not a place to listen");
            problem.help = Some("Write an address and port, such as 127.0.0.1:8081, or unix:PATH.".to_owned());
        }
        let open = address.is_ok_and(|address| !address.ip().is_loopback());
        let guarded = raw.admin.as_ref().is_some_and(admin::is_guarded);
        if name == "admin" && open && !guarded {
            let problem =
                found.warning(Code::Conflict, &at, "the admin door is open to other machines and has no `admin.token`");
            problem.help = Some("Its API answers only on loopback without one; metrics answer everyone.".to_owned());
        }
        if places.iter().any(|(other, address)| *other < name && *address == Some(text)) && !text.ends_with(":0") {
            found.error(Code::Conflict, &at, "two doors cannot listen at one place");
        }
    }
}

/// Settings that do nothing at this door, and certificates that do not go with their key.
fn door_settings(name: &str, door: &Door, at: &str, found: &mut Findings<'_>) {
    if let Some(tls) = &door.tls
        && let Err((field, words)) = pair(&tls.certificate, &tls.key.0)
    {
        found.error(Code::BadFormat, &format!("{at}/tls/{field}"), words);
    }
    if door.mode.is_some() && !door.address.as_ref().is_some_and(|address| address.starts_with("unix:")) {
        found.error(Code::Conflict, &format!("{at}/mode"), "only the file of a Unix socket has a mode");
    }
    if name == "proxy" && !door.forwarded.is_empty() {
        let message = "only the public and the admin door count clients by address";
        found.error(Code::Conflict, &format!("{at}/forwarded"), message);
    }
    if name == "admin" && !door.proxy_protocol.is_empty() {
        let message = "the admin door takes connections without a PROXY protocol header only";
        found.error(Code::Conflict, &format!("{at}/proxy_protocol"), message);
    }
    for (field, networks) in [("proxy_protocol", &door.proxy_protocol), ("forwarded", &door.forwarded)] {
        for (index, network) in networks.iter().enumerate() {
            if read_network(&network.0).is_none() {
                let problem = found.error(
                    Code::BadFormat,
                    &format!("{at}/{field}/{index}"),
                    format!("`{}` is not an address range", network.0),
                );
                problem.help = Some("Write the first address and how many bits count, such as 10.0.0.0/8.".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use serde_json::{Value, json};

    fn gateway(more: &Value) -> String {
        let mut value = json!({
            "trunkline": 1, "public_url": "https://hooks.example.com", "integrations": ["./integrations"],
            "secrets": { "key": "${env:KEY}" },
        });
        value.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        told(value).concat()
    }

    #[test]
    fn production_demands_https_and_long_keys() {
        assert_eq!(gateway(&json!({})), "");
        assert!(gateway(&json!({ "public_url": "http://hooks.example.com" })).contains("by https"));
        assert_eq!(gateway(&json!({ "public_url": "http://localhost:8080", "mode": "development" })), "");
        let caller = json!({ "id": "a", "key": "short", "allow": [{ "integration": "*", "connection": "*" }] });
        assert!(gateway(&json!({ "callers": [caller] })).contains("shorter than 16"));
        assert_eq!(gateway(&json!({ "callers": [caller], "mode": "development" })), "");
    }

    #[test]
    fn a_key_file_that_is_not_there_is_told_in_production() {
        let secrets = json!({ "key": "${file:./no-such-key}" });
        assert!(gateway(&json!({ "secrets": secrets })).contains("`./no-such-key` does not exist"));
        assert_eq!(gateway(&json!({ "secrets": secrets, "mode": "development" })), "");
        assert_eq!(gateway(&json!({ "secrets": { "key": "${file:./Cargo.toml}" } })), "");
    }

    #[test]
    fn doors_listen_at_places_of_their_own() {
        assert!(gateway(&json!({ "listen": { "public": "8080" } })).contains("not a place to listen"));
        assert!(gateway(&json!({ "listen": { "public": "0.0.0.0:1", "proxy": "0.0.0.0:1" } })).contains("two doors"));
        assert!(gateway(&json!({ "listen": { "admin": "0.0.0.0:8082" } })).contains("no `admin.token`"));
        let door = |name: &str, door: Value| gateway(&json!({ "listen": { name: door } }));
        assert_eq!(door("public", json!({ "forwarded": ["10.0.0.0/8"], "proxy_protocol": ["10.0.0.0/8"] })), "");
        assert_eq!(door("proxy", json!({ "address": "unix:proxy.sock", "mode": "0600" })), "");
        assert!(door("proxy", json!({ "forwarded": ["10.0.0.0/8"] })).contains("only the public and the admin door"));
        assert!(door("admin", json!({ "proxy_protocol": ["10.0.0.0/8"] })).contains("PROXY protocol header"));
        assert!(door("proxy", json!({ "mode": "0600" })).contains("Unix socket"));
        assert!(door("public", json!({ "proxy_protocol": ["10.0.0.1/8"] })).contains("not an address range"));
    }

    #[test]
    fn destinations_are_addresses_and_sign() {
        let destination = |value: Value| gateway(&json!({ "destinations": { "app": value } }));
        assert_eq!(destination(json!({ "url": "http://127.0.0.1:3000", "signing_secret": "s" })), "");
        assert!(destination(json!({ "url": "http://127.0.0.1:3000" })).contains("not signed"));
        assert!(destination(json!({ "url": "https://u:p@a.example", "signing_secret": "s" })).contains("password"));
    }

    #[test]
    fn origins_of_pages_are_exact() {
        let connect = |value: Value| gateway(&json!({ "connect": value }));
        assert_eq!(connect(json!({ "origins": ["https://app.example.com"], "link_ttl": "1h" })), "");
        for wrong in ["https://app.example.com/x", "*", "https://*.example.com", "app.example.com"] {
            assert!(connect(json!({ "origins": [wrong] })).contains("is not an origin"), "{wrong}");
        }
        assert!(connect(json!({ "origins": ["http://app.example.com"] })).contains("at https"));
        assert!(connect(json!({ "link_ttl": "8d" })).contains("between 1m and 7d"));
    }

    #[test]
    fn networks_are_ranges() {
        assert!(gateway(&json!({ "private_networks": ["10.1.2.3/8"] })).contains("not an address range"));
    }
}
