//! Connections carried from one deployment to another: exports, and imports that are a plan first.
//!
//! An export says which connections there are. It has their secrets only when it is encrypted to `age`
//! recipients, and then the whole of it is: there is no way to get secrets out in clear. What a connection
//! saved at its sign-in counts as secret, and so does every input that the definition calls so; without its
//! definition a connection's inputs are all secret. An import is compared with what is there, told as a
//! [`Plan`], and carried out only if it is still that plan ([`import`]).

mod import;

use std::fmt;
use std::io::Write as _;

use age::armor::{ArmoredWriter, Format};
use age::x25519::Recipient;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use super::directory::Connections;
use super::error::ConnectionError;
use super::stored::{self, StoredError};
use crate::base::clock::Timestamp;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::store::StoreError;

/// The form that is written and read.
pub const FORMAT: u32 = 1;
/// The most connections of one export; far more than one admin request should carry.
pub const MOST: usize = 100_000;

/// An export. Its `Debug` tells how much, never what.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The form; see [`FORMAT`].
    pub trunkline_export: u32,
    /// When it was made; absent without a master key, when there is nothing to export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<Timestamp>,
    /// Whether it has secrets.
    pub secrets: bool,
    /// The connections, by integration and name.
    pub connections: Vec<Exported>,
    /// Those that could not be put in, because their records do not open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
}

/// A connection that could not be exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UnreadableConnection)]
pub struct Unreadable {
    /// The integration's id.
    pub integration: String,
    /// Its name within the integration.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// An encrypted export.
#[derive(Debug)]
pub struct Sealed {
    /// Armoured text of age.
    pub text: String,
    /// How many connections could not be put in.
    pub unreadable: usize,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Export({} connections, secrets: {})", self.connections.len(), self.secrets)
    }
}

/// A connection as it is exported.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// The integration's id.
    pub integration: String,
    /// Its name within the integration.
    pub name: String,
    /// What it signs in with, in words.
    pub credential: String,
    /// Its inputs that are not secret.
    pub inputs: Map<String, Json>,
    /// Whether it is put out of use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// All of it, where the export has secrets: the form in which the store seals it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Json>,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exported({}/{}, {})", self.integration, self.name, self.credential)
    }
}

/// What to do about a connection that is there already and differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Leave it as it is, and say so.
    #[default]
    Keep,
    /// Put the imported one in its place, unless the one that is there is newer.
    Replace,
    /// Put the imported one in its place, whichever is newer.
    ReplaceNewer,
}

/// What an import would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportPlan)]
pub struct Plan {
    /// A row a connection, in the export's order.
    pub rows: Vec<Row>,
    /// Stands for the rows: an import that names it is refused when the plan has changed since.
    pub digest: String,
}

/// What an import does with one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportRow)]
pub struct Row {
    /// The integration's id.
    pub integration: String,
    /// Its name.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// Why, where that needs words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ImportAction)]
pub enum Action {
    /// It is made.
    Make,
    /// It takes the place of the one that is there.
    Change,
    /// It is there already as it is in the export.
    Same,
    /// Another of its name is there, and stays.
    Conflict,
    /// One that is newer is there, and stays although others are replaced.
    Newer,
    /// It cannot be made here.
    Refuse,
}

/// Why there is no export or import.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Someone who should be able to read it is not named as age names people.
    #[error("recipient {0} is not one: expected an age public key, `age1…`, as `age-keygen` prints it")]
    Recipient(usize),
    /// Nobody could read it.
    #[error("an export with secrets is encrypted, so name at least one recipient")]
    NoRecipient,
    /// It could not be encrypted.
    #[error("the export could not be encrypted: {0}")]
    Encrypt(String),
    /// It is in a form that this version does not read.
    #[error(
        "the export has form {0}, and this version reads form {FORMAT}: use the version that it was made with, or a newer one"
    )]
    Format(u32),
    /// It has too many connections.
    #[error("the export has {0} connections, more than the limit of {MOST}")]
    TooMany(usize),
    /// It has two connections of one name.
    #[error("the export has `{0}` twice: leave one of the two out")]
    Twice(String),
    /// The plan is another by now.
    #[error("the plan has changed since it was shown: look at it again")]
    Changed,
    /// There is nowhere to put them.
    #[error("there is no master key to seal connections with: name one under `secrets.key`")]
    NoKey,
    /// One connection could not be read or written.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether secrets are put in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Without,
    With,
}

impl Connections {
    /// Every stored connection, without its secrets. The audit log has it first. Those that do not open are listed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn export(&self, actor: &str, generation: &Generation) -> Result<Export, TransferError> {
        self.gather(actor, generation, Secrets::Without).await
    }

    /// Every stored connection with its secrets, encrypted to these age public keys, as armoured text. The
    /// audit log has it first. Those that do not open are listed in it.
    ///
    /// # Errors
    /// When a recipient is none, or the store fails.
    pub async fn export_sealed(
        &self,
        actor: &str,
        generation: &Generation,
        recipients: &[String],
    ) -> Result<Sealed, TransferError> {
        let read = |(at, text): (usize, &String)| {
            text.trim().parse::<Recipient>().map_err(|_| TransferError::Recipient(at + 1))
        };
        let recipients = recipients.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        if recipients.is_empty() {
            return Err(TransferError::NoRecipient);
        }
        let export = self.gather(actor, generation, Secrets::With).await?;
        let broken = |error: serde_json::Error| TransferError::Encrypt(error.to_string());
        let plain = Zeroizing::new(serde_json::to_vec(&export).map_err(broken)?);
        let text = seal(&plain, &recipients).map_err(TransferError::Encrypt)?;
        Ok(Sealed { text, unreadable: export.unreadable.len() })
    }

    async fn gather(&self, actor: &str, generation: &Generation, secrets: Secrets) -> Result<Export, TransferError> {
        let mut export = Export {
            trunkline_export: FORMAT,
            exported_at: None,
            secrets: secrets == Secrets::With,
            connections: Vec::new(),
            unreadable: Vec::new(),
        };
        let Some(stored) = self.stored() else { return Ok(export) };
        let names = stored.names().await.map_err(ConnectionError::listing)?;
        let detail = serde_json::json!({ "connections": names.len(), "secrets": export.secrets });
        export.exported_at = Some(stored.record(actor, "connections.export", detail).await?);
        for (integration, name) in names {
            let content = match stored.json(&integration, &name).await {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(reason @ StoredError::Store(_)) => {
                    return Err(ConnectionError::of_stored(&integration, &name, reason).into());
                }
                Err(reason) => {
                    tracing::error!(integration, connection = name, "a connection is not exported: {reason}");
                    export.unreadable.push(Unreadable { integration, name, reason: reason.to_string() });
                    continue;
                }
            };
            let of = generation.integration(&integration);
            let paused = self.is_paused(&integration, &name).await?;
            let one = exported((integration, name), of.map(|of| &**of), content, secrets);
            export.connections.push(Exported { paused, ..one });
        }
        Ok(export)
    }
}

fn exported(
    (integration, name): (String, String),
    of: Option<&Integration>,
    content: Json,
    secrets: Secrets,
) -> Exported {
    let parsed = stored::of_json(&content);
    let credential = parsed.as_ref().map_or("unknown", |content| content.credential.kind()).to_owned();
    let public =
        |input: &str| of.is_some_and(|of| of.inputs.iter().any(|known| &*known.name == input && !known.secret));
    let inputs = parsed.map(|content| content.inputs).unwrap_or_default();
    let inputs = inputs.into_iter().filter(|(input, _)| public(input)).collect();
    let content = (secrets == Secrets::With).then_some(content);
    Exported { integration, name, credential, inputs, paused: false, content }
}

fn seal(plain: &[u8], recipients: &[Recipient]) -> Result<String, String> {
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| error.to_string())?;
    let mut armoured = Vec::new();
    let told = |error: std::io::Error| error.to_string();
    let armour = ArmoredWriter::wrap_output(&mut armoured, Format::AsciiArmor).map_err(told)?;
    let mut writer = encryptor.wrap_output(armour).map_err(told)?;
    writer.write_all(plain).map_err(told)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(told)?;
    String::from_utf8(armoured).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
