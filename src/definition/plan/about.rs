//! What people are told of a service before they use it.

use std::sync::Arc;

/// What people are told of a service before they use it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What it is for, in a sentence.
    pub summary: Option<String>,
    /// The shelf of the marketplace it stands on.
    pub category: Option<String>,
    /// What it offers.
    pub features: Vec<String>,
    /// What it would offer, and this version does not run.
    pub not_yet: Vec<String>,
    /// The address of its own documentation.
    pub docs: Option<String>,
    /// What it costs: `free`, `freemium` or `paid`.
    pub pricing: Option<&'static str>,
    /// Its logo, as an SVG document.
    pub logo: Option<Arc<str>>,
    /// Whether it stands on the first shelf.
    pub featured: bool,
    /// The catalogue's entry that it is, with nothing but what a deployment gives of its own: its names, the
    /// application's client, secrets, connections and rules.
    pub entry: Option<Arc<str>>,
}
