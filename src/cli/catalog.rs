//! `trunkline catalog`: the definitions that come with the program.

use clap::{Args, Subcommand};

use super::Ended;
use super::output::Output;
use crate::definition::catalogue::{self, Entry, Listing};
use crate::definition::suggest::nearest;

/// What to do with the catalogue.
#[derive(Debug, Subcommand)]
pub enum Catalog {
    /// List the entries, or those that match; `trunkline show ID` shows one, `trunkline new ID` begins a
    /// definition from it
    #[command(visible_alias = "search")]
    List(Wanted),
}

/// Which entries.
#[derive(Debug, Args)]
pub struct Wanted {
    /// Words that must all be found in an entry's id, title, summary, category, features or way of signing in
    words: Vec<String>,
    /// Only this category, such as `payments`
    #[arg(long)]
    category: Option<String>,
    /// Only those with this feature, such as `Webhooks`
    #[arg(long)]
    feature: Option<String>,
    /// Only those that sign in this way: a kind such as `api_key`, or an OAuth grant such as `device_code`
    #[arg(long, value_name = "KIND")]
    auth: Option<String>,
}

/// Runs the command.
pub fn run(command: &Catalog, output: &mut Output) -> anyhow::Result<Ended> {
    let Catalog::List(wanted) = command;
    let entries: Vec<_> = catalogue::ids().filter_map(catalogue::entry).map(Entry::document).collect();
    let all: Vec<_> = entries.iter().map(|entry| Listing::of(entry)).collect();
    let found: Vec<_> = all.iter().filter(|listing| wanted.fits(listing)).collect();
    if output.json {
        output.value(&found)?;
    } else if !found.is_empty() {
        let row = |listing: &&Listing<'_>| {
            let auth = listing.grant.map_or_else(|| listing.auth.to_owned(), |grant| format!("oauth2: {grant}"));
            vec![listing.id.to_owned(), listing.title.to_owned(), listing.category.to_owned(), auth]
        };
        output.table(&["ID", "TITLE", "CATEGORY", "AUTH"], &found.iter().map(row).collect::<Vec<_>>())?;
    }
    if found.is_empty() {
        output.note(format_args!("nothing in the catalogue matches{}", wanted.hint(&all)));
        return Ok(Ended::No);
    }
    Ok(Ended::Done)
}

impl Wanted {
    fn fits(&self, listing: &Listing<'_>) -> bool {
        let is = |wanted: &Option<String>, texts: &[&str]| {
            wanted.as_ref().is_none_or(|wanted| texts.iter().any(|text| text.eq_ignore_ascii_case(wanted)))
        };
        self.words.iter().all(|word| listing.has(word))
            && is(&self.category, &[listing.category])
            && is(&self.feature, &listing.features)
            && is(&self.auth, &[listing.auth, listing.grant.unwrap_or_default()])
    }

    /// What was perhaps meant, or what there is to choose from.
    fn hint(&self, all: &[Listing<'_>]) -> String {
        if let Some(near) = self.words.iter().find_map(|word| nearest(word, all.iter().map(|listing| listing.id))) {
            return format!(": did you mean `{near}`?");
        }
        if self.category.is_some() {
            let mut categories: Vec<_> = all.iter().map(|listing| listing.category).collect();
            categories.sort_unstable();
            categories.dedup();
            return format!(": the categories are {}", categories.join(", "));
        }
        String::new()
    }
}
