//! Plugins, as they are named in files. Their engine has yet to come; this room stays small until then.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{Ordered, Short};
use super::scalar::{DurationText, Id, SizeText, Tree};

/// A plugin of the gateway file, used in a definition.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginUse {
    /// Its name in the gateway file's `plugins`.
    pub name: Id,
    /// Settings that it is given.
    #[serde(default)]
    pub settings: Ordered<Tree>,
}

/// A sandboxed module.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The WebAssembly module, relative to the gateway file.
    pub module: String,
    /// The memory it may use. Default 16MiB.
    pub memory: Option<SizeText>,
    /// How long one call may take. Default 100ms.
    pub timeout: Option<DurationText>,
    /// Hosts it may call. Default: none.
    #[serde(default)]
    #[schemars(extend("x-hosts" = true))]
    pub hosts: Vec<String>,
}

impl Short for Plugin {
    const SHORT: &'static str = "the path of a module";

    fn from_short(module: String) -> Result<Self, String> {
        Ok(Self { module, memory: None, timeout: None, hosts: Vec::new() })
    }
}
