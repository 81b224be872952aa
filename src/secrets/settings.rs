//! Which server a gateway file names, before anything in the file that may need it is read.

use std::path::Path;
use std::sync::Arc;

use crate::definition::compile::secrets::vault_server;
use crate::definition::load::bytes;
use crate::definition::load::environment::Environment;
use crate::definition::plan::gateway::VaultServer;
use crate::definition::raw::gateway as raw;
use crate::definition::resolve::{Kind, resolve};

/// The server that a gateway file names under `secrets.vault`. `None` when it names none, and when what it
/// says there is faulty: the reading of the whole file tells what is wrong.
pub fn server_of(file: &Path, environment: &dyn Environment) -> Option<VaultServer> {
    let file = Arc::new(file.to_owned());
    let content = bytes::read(&file).ok()?;
    let text = bytes::text(&file, &content).ok()?;
    if !text.contains("vault") {
        return None;
    }
    let document = resolve(Kind::Gateway, &file, &text, environment).document?;
    let written = document.value.pointer("/secrets/vault")?;
    // A reference that could not be followed is still there as it was written, and is no secret.
    if written.to_string().contains("${") {
        return None;
    }
    let raw: raw::Vault = serde_json::from_value(written.clone()).ok()?;
    vault_server(&raw).ok()
}
