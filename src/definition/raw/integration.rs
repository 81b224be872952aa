//! A definition file as a whole.

use schemars::JsonSchema;
use serde::Deserialize;

use super::api::Api;
use super::auth::Auth;
use super::connection::Connection;
use super::form::Ordered;
use super::inputs::Input;
use super::rule::Rule;
use super::scalar::{GrammarVersion, Id, WebAddress};
use super::sync::Sync;
use super::webhook::Webhook;

/// What using a service costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pricing {
    /// Nothing.
    Free,
    /// Nothing up to some use.
    Freemium,
    /// Money.
    Paid,
}

/// A definition: a service, and what this deployment does with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Trunkline integration")]
pub struct Integration {
    /// The grammar's version. Always 1.
    pub trunkline: GrammarVersion,
    /// What this deployment calls the integration: the first segment of its proxy path, the last of its
    /// webhook address.
    #[schemars(example = &"github")]
    pub id: Id,
    /// The catalogue entry to start from. Maps merge deeply, lists are replaced; in a choice such as
    /// `auth` another key replaces the whole.
    pub extends: Option<Id>,
    /// What people call the service. Default: the id.
    pub title: Option<String>,
    /// What it is for, in a sentence.
    pub summary: Option<String>,
    /// The shelf of the marketplace it stands on, such as `payments`.
    pub category: Option<String>,
    /// What it offers, for the marketplace's filters.
    #[serde(default)]
    pub features: Vec<String>,
    /// What using the service costs, for the marketplace.
    pub pricing: Option<Pricing>,
    /// The service's logo, as an SVG document of at most 32 KiB; usually `${file:./logo.svg}`. Without one the
    /// page shows the initials of the title. Logos are marks of their owners: whoever adds one sees to it that
    /// they may.
    pub logo: Option<String>,
    /// Whether it stands on the marketplace's first shelf.
    #[serde(default)]
    pub featured: bool,
    /// The service's own documentation.
    pub docs: Option<WebAddress>,
    /// What each connection must tell, by name: `input.NAME` in templates.
    #[serde(default)]
    #[schemars(extend("x-names" = "variable"))]
    pub inputs: Ordered<Input>,
    /// How connections sign in. Default: they do not.
    pub auth: Option<Auth>,
    /// The service's API.
    pub api: Option<Api>,
    /// Connections declared in this file: no click needed.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// How the service's webhooks come in, at `POST /webhooks/ID` of the public door.
    pub webhook: Option<Webhook>,
    /// Collections that are kept in copy here.
    #[serde(default)]
    #[schemars(extend("x-sees" = "sync"))]
    pub syncs: Vec<Sync>,
    /// What happens because of events.
    #[serde(default)]
    #[schemars(extend("x-sees" = "rule"))]
    pub rules: Vec<Rule>,
}
