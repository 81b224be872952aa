//! A deployment as commands need it without running it: its settings, its definitions.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Common;
use crate::app::Seams;
use crate::base::clock::{Clock as _, SystemClock};
use crate::definition::assemble::assemble;
use crate::definition::compile::{DEFAULT_STATE, certificates, state_directory};
use crate::definition::live::Generation;
use crate::definition::load::environment::{Environment, ProcessEnvironment};
use crate::definition::resolve::{Kind, resolve};
use crate::definition::workspace::{Deployment, GATEWAY_FILE, Reading, Selection};
use crate::secrets::{Outside, SecretStore};

/// The gateway file that the arguments mean.
pub fn gateway_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(GATEWAY_FILE) } else { path.to_owned() }
}

/// Reads a deployment with the resolved documents of its definitions.
///
/// # Errors
/// When there is no gateway file, or it has faults.
pub fn read(path: &Path, environment: &dyn Environment) -> anyhow::Result<(Deployment, Generation)> {
    let file = gateway_file(path);
    if !file.exists() {
        bail!("{} does not exist: name your gateway file with --config", file.display());
    }
    let selection = Selection { gateway: Some(Arc::new(file)), ..Selection::default() };
    let deployment = Reading { environment, previous: None, keep_documents: true }.read(&selection);
    let Some(generation) = assemble(None, &deployment, SystemClock::new().now()) else {
        bail!("the gateway file has faults:\n{}", deployment.report().text(false));
    };
    Ok((deployment, generation))
}

/// What the references of a deployment are looked up in: `base`, and the secret store that its gateway file
/// names, where it names one.
///
/// # Errors
/// When the system gives no thread or no name servers.
pub fn with_secrets(gateway: Option<&Path>, base: &Arc<dyn Environment>) -> anyhow::Result<Arc<dyn Environment>> {
    let named = gateway.filter(|file| crate::secrets::server_of(file, &**base).is_some());
    let Some(file) = named else { return Ok(Arc::clone(base)) };
    let outside = Outside { environment: Arc::clone(base), ..Seams::of_system()?.outside() };
    let store = SecretStore::of_file(file.to_owned(), outside)?;
    Ok(store.map_or_else(|| Arc::clone(base), |store| store as Arc<dyn Environment>))
}

/// What the gateway file says at a few pointers, read without its definitions. Faults elsewhere in it do
/// not matter here.
#[derive(Debug)]
pub struct Settings(Value);

impl Settings {
    /// Reads the gateway file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not YAML.
    pub fn read(common: &Common) -> anyhow::Result<Option<Self>> {
        let file = gateway_file(&common.config);
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let resolved = resolve(Kind::Gateway, &Arc::new(file.clone()), &text, &ProcessEnvironment);
        let document = resolved.document.with_context(|| format!("{} is not YAML", file.display()))?;
        Ok(Some(Self(document.value)))
    }

    /// Where a door can be reached from this machine, as a URL.
    pub fn door(&self, name: &str) -> Option<String> {
        let door = self.0.get("listen")?.get(name)?;
        let text = door.get("address").unwrap_or(door).as_str()?;
        let scheme = if door.get("tls").is_some() { "https" } else { "http" };
        Some(match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() => format!("{scheme}://127.0.0.1:{}", address.port()),
            Ok(address) => format!("{scheme}://{address}"),
            Err(_) => text.to_owned(),
        })
    }

    /// The certificate that a door shows, in DER, where the file names one and it could be followed.
    pub fn certificate(&self, name: &str) -> Option<Vec<u8>> {
        let text = self.0.get("listen")?.get(name)?.get("tls")?.get("certificate")?.as_str()?;
        certificates(text).ok()?.first().cloned()
    }

    /// The directory of the embedded store, below the gateway file's own.
    ///
    /// # Errors
    /// When the state is kept elsewhere, or the path's reference could not be followed.
    pub fn state(&self, common: &Common) -> anyhow::Result<PathBuf> {
        let file = gateway_file(&common.config);
        let written = self.0.get("state").map(|state| state.get("sled").and_then(|sled| sled.get("path")));
        let path = match written {
            Some(Some(path)) => path.as_str().filter(|path| !path.contains("${")),
            Some(None) => bail!("the `state` in {} is no embedded store: there is none to work on", file.display()),
            None => Some(DEFAULT_STATE),
        };
        let path =
            path.with_context(|| format!("`state.sled.path` in {} cannot be followed: use --state", file.display()))?;
        Ok(state_directory(file.parent().unwrap_or(Path::new(".")), path))
    }

    /// The admin token, where one is set and its reference could be followed.
    pub fn admin_token(&self) -> Option<String> {
        let token = self.0.get("admin")?.get("token")?.as_str()?;
        (!token.contains("${")).then(|| token.to_owned())
    }
}
