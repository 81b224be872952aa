//! `/api/integrations/marketplace`: what can be used here: the deployment's integrations, the definitions whose
//! files have errors, and the catalogue's entries that are not installed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::integrations::{auth_word, untaken};
use super::query::Asked;
use super::ratings;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::definition::catalogue::{self, Entry, Listing};
use crate::definition::live::{FileStatus, Generation};
use crate::definition::not_yet;
use crate::definition::plan::Integration;
use crate::definition::render;
use crate::definition::suggest::nearest;

/// What is wanted of the marketplace.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Words that must all be found: in id, title, summary, category, features or way of signing in. Where a word is found
    /// nowhere, the nearest one that is counts instead.
    pub q: Option<String>,
    /// Only of this shelf.
    pub category: Option<String>,
    /// Only what signs in so, by the grammar's word.
    pub auth: Option<String>,
    /// Only what stands so.
    #[param(inline)]
    pub state: Option<Standing>,
    /// Only what has this.
    #[param(inline)]
    pub only: Option<Mark>,
}

/// What an entry may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It stands on the first shelf.
    Featured,
    /// It is the catalogue's entry, unchanged, and this version takes its webhooks.
    Verified,
    /// Someone of this deployment has rated it.
    Rated,
    /// It has connections.
    Connected,
}

impl Mark {
    const ALL: [Self; 4] = [Self::Featured, Self::Verified, Self::Rated, Self::Connected];

    fn is_of(self, row: &Row) -> bool {
        match self {
            Self::Featured => row.featured,
            Self::Verified => row.verified,
            Self::Rated => row.ratings > 0,
            Self::Connected => row.installs > 0,
        }
    }
}

/// How an entry stands in this deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its file has errors: an older version of it is in force, or none.
    Broken,
    /// It is in force.
    Installed,
    /// It is in the catalogue.
    Available,
}

/// An entry of the marketplace.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Integration)]
pub struct Row {
    /// Its id: what `extends` and the addresses name.
    pub id: String,
    /// What people call the service.
    pub name: String,
    /// What `/api/connect/{provider}` names.
    pub provider: String,
    /// The shelf it stands on.
    pub category: String,
    /// What it is for.
    pub description: String,
    /// Where its logo is, on the page's own path; `None` where the definition has none.
    pub logo: Option<String>,
    /// How connections sign in; `unknown` where no version of the file is in force.
    pub auth_type: String,
    /// What it offers.
    pub features: Vec<String>,
    /// What its definition says that it offers, and this version does not run.
    pub not_yet: Vec<String>,
    /// What it costs: `free`, `freemium` or `paid`, where the definition says.
    pub pricing: Option<String>,
    /// Connections of it in this deployment.
    pub installs: usize,
    /// Whether it stands on the first shelf.
    pub featured: bool,
    /// The mean of this deployment's own ratings, to a tenth; `None` without any.
    pub rating: Option<f64>,
    /// How many there are.
    pub ratings: usize,
    /// Whether it is the catalogue's entry, unchanged, as it passed its simulated run, and this version takes its webhooks
    /// where it has any.
    pub verified: bool,
    /// How it stands here.
    pub state: Standing,
    /// The service's own documentation.
    pub docs: Option<String>,
    /// The deployment's file, where it has one.
    pub file: Option<String>,
    /// What keeps the file from counting, each with its place.
    pub problems: Vec<String>,
}

/// Entries that are wanted, and how many there are of each kind.
#[derive(Debug, Serialize)]
pub struct Shelf {
    /// The entries: broken ones first, then installed, then featured ones, by name.
    pub rows: Vec<Row>,
    /// The words that were looked for instead of those that are found nowhere.
    pub instead: Option<String>,
    /// How many there are in all.
    pub all: usize,
    /// Entries by category, counted under the other filters.
    pub categories: BTreeMap<String, usize>,
    /// Entries by way of signing in, counted under the other filters.
    pub auths: BTreeMap<String, usize>,
    /// Entries by standing, counted under the other filters.
    pub states: BTreeMap<Standing, usize>,
    /// Entries by what they have, counted under the other filters; one may have several.
    pub marks: BTreeMap<Mark, usize>,
}

/// The entries that are wanted.
#[utoipa::path(get, path = "/api/integrations/marketplace", tag = "marketplace", params(Wanted),
    responses((status = 200, body = [Row]), (status = 503, description = "connection_unusable")))]
pub async fn list(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Vec<Row>>, Refused> {
    shelf(&parts, &wanted).await.map(|shelf| Json(shelf.rows))
}

/// The entries that are wanted, with their counts.
pub async fn shelf(parts: &Parts, wanted: &Wanted) -> Result<Shelf, Refused> {
    let all = every(parts).await?;
    let instead = wanted.q.as_deref().and_then(|q| mended(q, &all));
    let wanted = &Wanted { q: instead.clone().or_else(|| wanted.q.clone()), ..wanted.clone() };
    let with = |change: fn(&mut Wanted)| {
        let mut wanted = wanted.clone();
        change(&mut wanted);
        wanted
    };
    let count = |wanted: &Wanted, word: fn(&Row) -> String| {
        let words = all.iter().filter(|row| wanted.fits(row)).map(word);
        words.fold(BTreeMap::new(), |mut counts, word| {
            *counts.entry(word).or_default() += 1;
            counts
        })
    };
    let standing = with(|wanted| wanted.state = None);
    let states = all.iter().filter(|row| standing.fits(row)).fold(BTreeMap::new(), |mut counts, row| {
        *counts.entry(row.state).or_default() += 1;
        counts
    });
    let unmarked = with(|wanted| wanted.only = None);
    let has = |mark: Mark| all.iter().filter(|row| unmarked.fits(row) && mark.is_of(row)).count();
    let marks = Mark::ALL.into_iter().map(|mark| (mark, has(mark))).filter(|(_, count)| *count > 0).collect();
    Ok(Shelf {
        instead,
        marks,
        categories: count(&with(|wanted| wanted.category = None), |row| row.category.clone()),
        auths: count(&with(|wanted| wanted.auth = None), |row| row.auth_type.clone()),
        states,
        all: all.len(),
        rows: all.iter().filter(|row| wanted.fits(row)).cloned().collect(),
    })
}

/// What is looked for instead of words of which some are found nowhere: the nearest that are. `None` where each is found,
/// or one is near to nothing.
fn mended(q: &str, all: &[Row]) -> Option<String> {
    let texts = |row: &Row| {
        let shown = [row.id.clone(), row.name.clone(), row.category.clone()];
        shown.into_iter().chain(row.features.clone()).chain(row.not_yet.clone())
    };
    let known: BTreeSet<String> = all
        .iter()
        .flat_map(texts)
        .flat_map(|text| text.to_lowercase().split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mend = |word: &str| {
        if all.iter().any(|row| row.has(word)) {
            return Some(word.to_owned());
        }
        nearest(word, known.iter().map(String::as_str))
    };
    let words = q.to_lowercase();
    let mended = words.split_whitespace().map(mend).collect::<Option<Vec<_>>>()?.join(" ");
    (mended != words.split_whitespace().collect::<Vec<_>>().join(" ")).then_some(mended)
}

/// The entry of this id.
pub async fn one(parts: &Parts, id: &str) -> Result<Option<Row>, Refused> {
    Ok(every(parts).await?.into_iter().find(|row| row.id == id))
}

/// Every entry: broken ones first, then installed, then featured ones, by name.
///
/// # Errors
/// When connections cannot be listed.
pub(super) async fn every(parts: &Parts) -> Result<Vec<Row>, Refused> {
    let generation = parts.live.load();
    let heads = parts.connections.list(&generation).await;
    let heads = heads.map_err(|error| Refused::new(error.refusal(), &error.to_string()))?;
    let connections = heads.into_iter().fold(HashMap::<String, usize>::new(), |mut counts, head| {
        *counts.entry(head.integration).or_default() += 1;
        counts
    });
    let installed = generation.integrations.values().map(|integration| installed(&generation, integration));
    let mut rows: Vec<Row> = installed.collect();
    rows.extend(rejected(&generation));
    let taken: std::collections::HashSet<String> = rows.iter().map(|row| row.id.clone()).collect();
    let entries = catalogue::ids().filter(|id| !taken.contains(*id)).filter_map(catalogue::entry);
    rows.extend(entries.map(available));
    let means = ratings::means(parts).await?;
    for row in &mut rows {
        row.installs = connections.get(&row.id).copied().unwrap_or_default();
        let mean = means.get(&row.id).copied().unwrap_or_default();
        (row.rating, row.ratings) = (mean.rating, mean.count);
    }
    rows.sort_by(|a, b| (a.state, !a.featured, &a.name).cmp(&(b.state, !b.featured, &b.name)));
    Ok(rows)
}

fn installed(generation: &Generation, integration: &Arc<Integration>) -> Row {
    let file = generation.files.iter().find(|file| file.integration.as_ref() == Some(&integration.id));
    let problems = file.map(render::faults).unwrap_or_default();
    let about = &integration.about;
    Row {
        id: integration.id.to_string(),
        name: integration.title.clone(),
        provider: integration.id.to_string(),
        category: about.category.clone().unwrap_or_else(|| "other".to_owned()),
        description: about.summary.clone().unwrap_or_default(),
        logo: about.logo.as_ref().map(|_| format!("/integrations/{}/logo.svg", integration.id)),
        auth_type: auth_word(&integration.auth).to_owned(),
        features: about.features.clone(),
        not_yet: about.not_yet.clone(),
        pricing: about.pricing.map(str::to_owned),
        installs: 0,
        featured: about.featured,
        rating: None,
        ratings: 0,
        verified: problems.is_empty()
            && untaken(integration).is_none()
            && about.entry.as_deref().is_some_and(catalogue::is_verified),
        state: if problems.is_empty() { Standing::Installed } else { Standing::Broken },
        docs: about.docs.clone(),
        file: file.map(|file| file.file.display().to_string()),
        problems,
    }
}

/// Files of which no version counts: they are shown rather than missed.
fn rejected(generation: &Generation) -> impl Iterator<Item = Row> {
    let unknown = |file: &&FileStatus| file.integration.as_ref().is_none_or(|id| generation.integration(id).is_none());
    let files = generation.rejected().filter(|file| !is_gateway(generation, file)).filter(unknown);
    files.map(|file| {
        let stem = file.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let id = file.integration.as_ref().map(ToString::to_string).or(stem).unwrap_or_default();
        Row {
            name: id.clone(),
            provider: id.clone(),
            id,
            category: "other".to_owned(),
            description: String::new(),
            logo: None,
            auth_type: "unknown".to_owned(),
            features: Vec::new(),
            not_yet: Vec::new(),
            pricing: None,
            installs: 0,
            featured: false,
            rating: None,
            ratings: 0,
            verified: false,
            state: Standing::Broken,
            docs: None,
            file: Some(file.file.display().to_string()),
            problems: render::faults(file),
        }
    })
}

/// The gateway file stands first.
fn is_gateway(generation: &Generation, file: &FileStatus) -> bool {
    generation.files.first().is_some_and(|first| Arc::ptr_eq(&first.file, &file.file))
}

fn available(entry: &Entry) -> Row {
    let document = entry.document();
    let listing = Listing::of(&document);
    let owned = |features: &[&str]| features.iter().map(|feature| (*feature).to_owned()).collect();
    let taken = not_yet::first_refusal(&document.value, "/webhook").is_none();
    Row {
        id: listing.id.to_owned(),
        name: listing.title.to_owned(),
        provider: listing.id.to_owned(),
        category: listing.category.to_owned(),
        description: listing.summary.to_owned(),
        logo: None,
        auth_type: listing.auth.to_owned(),
        features: owned(&listing.features),
        not_yet: owned(&listing.not_yet),
        pricing: listing.pricing.map(str::to_owned),
        installs: 0,
        featured: listing.featured,
        rating: None,
        ratings: 0,
        verified: taken && catalogue::is_verified(listing.id),
        state: Standing::Available,
        docs: Some(listing.docs.to_owned()),
        file: None,
        problems: Vec::new(),
    }
}

impl Wanted {
    fn fits(&self, row: &Row) -> bool {
        let is =
            |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted.is_empty() || wanted == is);
        let words = self.q.as_deref().unwrap_or_default().to_lowercase();
        is(&self.category, &row.category)
            && is(&self.auth, &row.auth_type)
            && self.state.is_none_or(|state| state == row.state)
            && self.only.is_none_or(|mark| mark.is_of(row))
            && words.split_whitespace().all(|word| row.has(word))
    }
}

impl Row {
    fn has(&self, word: &str) -> bool {
        let texts = [&self.id, &self.name, &self.description, &self.category, &self.auth_type];
        texts.into_iter().chain(&self.features).chain(&self.not_yet).any(|text| text.to_lowercase().contains(word))
    }
}
