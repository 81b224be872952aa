//! Where secrets are kept: the master key's place, and the Vault server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::api::certificates;
use super::gateway::below;
use super::place::{Fault, Place};
use crate::base::secret::Secret;
use crate::definition::load::reference::{Part, Reference, is_secret_path as is_path, parts};
use crate::definition::plan::gateway::{KeySource, PreviousKeys, TransitKey, VaultAuth, VaultServer};
use crate::definition::problem::Code;
use crate::definition::raw::gateway as raw;
use crate::definition::raw::scalar::SecretText;

const TRANSIT: &str = "transit";
const KV: &str = "secret";
const POLL: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the master key is. A reference is kept as written, because in development mode what it names is
/// made by the program.
pub(super) fn key_source(secrets: &raw::Secrets, directory: &Path, place: &Place<'_>) -> Result<KeySource, Fault> {
    let key = match &secrets.key.0 {
        raw::MasterKey::Transit(raw::Transit { key, mount }) => {
            let mount = mount.clone().unwrap_or_else(|| TRANSIT.to_owned());
            return Ok(KeySource::Transit(TransitKey { mount, key: key.clone() }));
        }
        raw::MasterKey::Reference(key) => key,
    };
    let written = place.document().written(place.pointer()).unwrap_or(key.0.expose());
    match parts(written).as_slice() {
        [Part::Reference(Reference::File(path), _)] => Ok(KeySource::File(below(directory, path))),
        [Part::Reference(Reference::Env(name, None), _)] => Ok(KeySource::Environment((*name).to_owned())),
        _ => {
            Err(place.problem(Code::LiteralSecret, "the master key is one reference: `${file:PATH}` or `${env:NAME}`"))
        }
    }
}

pub(super) fn previous(secrets: Option<&raw::Secrets>) -> PreviousKeys {
    let texts = secrets.into_iter().flat_map(|secrets| &secrets.previous.0);
    PreviousKeys(texts.map(secret).collect())
}

pub(super) fn vault(raw: Option<&raw::Secrets>, place: &Place<'_>) -> Result<Option<Arc<VaultServer>>, Fault> {
    let Some(raw) = raw.and_then(|secrets| secrets.vault.as_ref()) else { return Ok(None) };
    vault_server(raw).map(|server| Some(Arc::new(server))).map_err(|message| place.problem(Code::BadFormat, message))
}

/// A Vault server from its settings. Also called before the whole file is compiled, because references in
/// the file may mean this server.
///
/// # Errors
/// What is wrong with it, in words.
pub fn vault_server(raw: &raw::Vault) -> Result<VaultServer, String> {
    let url = Url::parse(&raw.url).map_err(|error| format!("`url` is not a URL: {error}"))?;
    let plain = matches!(url.scheme(), "http" | "https") && url.host().is_some() && matches!(url.path(), "" | "/");
    if !plain || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("`url` is scheme, host and port of the server, such as `https://vault.example.com:8200`".to_owned());
    }
    for (name, path) in [("mount", &raw.mount), ("namespace", &raw.namespace)] {
        if path.as_ref().is_some_and(|path| !is_path(path)) {
            return Err(format!("`{name}` is a path of letters, digits and `-_./`, without a slash at its ends"));
        }
    }
    Ok(VaultServer {
        url,
        auth: auth(&raw.auth)?,
        mount: raw.mount.clone().unwrap_or_else(|| KV.to_owned()),
        namespace: raw.namespace.clone(),
        poll: raw.poll.map_or(POLL, |time| time.0),
        timeout: raw.timeout.map_or(TIMEOUT, |time| time.0),
        ca: raw.ca.as_deref().map(certificates).transpose()?,
    })
}

fn auth(raw: &raw::VaultAuth) -> Result<VaultAuth, String> {
    let (mount, usual, fields) = match raw {
        raw::VaultAuth::Token(token) => return Ok(VaultAuth::Token(secret(token))),
        raw::VaultAuth::Approle(role) => (
            &role.mount,
            "approle",
            vec![("role_id", Secret::new(role.role_id.clone())), ("secret_id", secret(&role.secret_id))],
        ),
        raw::VaultAuth::Kubernetes(role) => {
            (&role.mount, "kubernetes", vec![("role", Secret::new(role.role.clone())), ("jwt", secret(&role.jwt))])
        }
    };
    let mount = mount.clone().unwrap_or_else(|| usual.to_owned());
    if is_path(&mount) {
        Ok(VaultAuth::Login { mount, fields })
    } else {
        Err("the mount of `auth` is a path of letters, digits and `-_./`, without a slash at its ends".to_owned())
    }
}

fn secret(text: &SecretText) -> Secret {
    Secret::new(text.0.expose().clone())
}
