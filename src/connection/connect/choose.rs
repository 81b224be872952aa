//! The choice between several sites or accounts, between the grant and the connection.
//!
//! Until a person has chosen there is no connection: what was granted waits, sealed, as long as a flow
//! does. Choosing takes it, once.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::browser::{Browser, same};
use super::door::Visit;
use super::drawer::{Drawer, Enclosed, KeepError, key};
use super::finish::Grown;
use super::link::{Fields, Link, moment};
use super::page::{Page, prefix};
use super::pending::LIFE;
use super::permission::Form;
use super::provider::Who;
use super::tell::Tampering;
use super::{Connect, LinkRefused, begin, nothing_done, unable};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::grant::Grant;
use crate::connection::{Content, Credential, Tokens, stored};
use crate::respond::{Answer, Refusal};

/// The collection of what waits for a choice.
pub const COLLECTION: &str = "connect_choices";
/// The most choices that are shown.
const MOST: usize = 200;
/// The most characters of a choice's label.
const LABEL: usize = 200;

/// What waits for a choice.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    pub link: Link,
    pub browser: String,
    scopes: Vec<String>,
    /// Tokens, inputs and saved values, as a connection keeps them.
    content: Enclosed,
    account: (Option<String>, Option<String>),
    notes: Vec<String>,
    step: usize,
    /// What is shown of each, and what is kept of it.
    choices: Vec<(String, Map<String, Json>)>,
    ends: Timestamp,
}

fn place(link: &Link, browser: &str) -> crate::store::model::RecordKey {
    // Found by link and browser: the person needs no further secret in an address.
    key(
        COLLECTION,
        &format!(
            "{}-{}",
            moment(link.expires_at().after(LIFE)),
            super::browser::digest(&format!("{}{browser}", link.id))
        ),
    )
}

impl Choice {
    /// Keeps what waits.
    pub async fn keep(
        drawer: &Drawer,
        grown: Grown,
        mut choices: Vec<(String, Map<String, Json>)>,
        now: Timestamp,
    ) -> Result<(), KeepError> {
        choices.truncate(MOST);
        for (label, _) in &mut choices {
            *label = label.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LABEL).collect();
        }
        let Grown { link, browser, scopes, inputs, grant, who, notes, step, .. } = grown;
        let content = Content { credential: Credential::Tokens(Tokens(grant.tokens)), inputs, saved: grant.saved };
        let plain = stored::plain(&content, now).map_err(|_| KeepError::Form)?;
        let text = std::str::from_utf8(&plain).map_err(|_| KeepError::Form)?;
        let Who { id, name } = who.unwrap_or_default();
        let key = place(&link, &browser);
        let (content, account, ends) = (Enclosed(Secret::from(text)), (id, name), now.after(LIFE));
        let choice = Self { link, browser, scopes, content, account, notes, step, choices, ends };
        drawer.put(&key, &choice, None).await.map(drop)
    }

    /// The connection that grows on with this choice.
    fn chosen(self, index: usize) -> Option<Grown> {
        let (_, values) = self.choices.into_iter().nth(index)?;
        let content = stored::read(self.content.0.expose().as_bytes()).ok()?;
        let Credential::Tokens(Tokens(tokens)) = content.credential else { return None };
        let mut saved = content.saved;
        saved.extend(values);
        let (id, name) = self.account;
        let who = (id.is_some() || name.is_some()).then_some(Who { id, name });
        Some(Grown {
            link: self.link,
            browser: self.browser,
            scopes: self.scopes,
            inputs: content.inputs,
            entered: None,
            grant: Grant { tokens, saved },
            who,
            notes: self.notes,
            step: self.step + 1,
        })
    }
}

impl Connect {
    /// Shows the choices.
    pub(super) async fn choices(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let found = match self.waiting_choice(integration, visit).await {
            Ok(Some(found)) => found,
            Ok(None) => return nothing_done(url),
            Err(refused) => return unable(url, &refused),
        };
        let (choice, result) = found;
        let title = generation.integration(integration).map_or(integration, |known| known.title.as_str());
        let labels: Vec<_> = choice.choices.iter().map(|(label, _)| label).collect();
        let action = format!("{}/api/connect/{integration}/choose?result={result}", prefix(url));
        let view = json!({ "service": title, "choices": labels, "action": action });
        let page = Page::new("choose", format!("Choose for {title}"), url).told_to(choice.link.origin.as_deref());
        page.show(view)
    }

    /// Takes the choice.
    pub(super) async fn choose(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let known = generation.integration(integration);
        if !begin::is_own_form(visit, url) {
            self.teller.refused(known.map(|known| &*known.id), Tampering::Origin, None).await;
            return nothing_done(url);
        }
        let (choice, result) = match self.waiting_choice(integration, visit).await {
            Ok(Some(found)) => found,
            Ok(None) => return nothing_done(url),
            Err(refused) => return unable(url, &refused),
        };
        let index = Form::of(&visit.body).one("choice").parse().ok().filter(|index| *index < choice.choices.len());
        let (Some(index), Some(known), Some(drawer)) = (index, known, &self.drawer) else {
            let labels: Vec<_> = choice.choices.iter().map(|(label, _)| label).collect();
            let action = format!("{}/api/connect/{integration}/choose?result={result}", prefix(url));
            let view = json!({ "service": integration, "choices": labels, "action": action, "problem": "Choose one of these." });
            return Page::new("choose", "Choose", url).refuse(Refusal::InvalidInput, view);
        };
        let taken = drawer.take::<Choice>(&place(&choice.link, &choice.browser)).await;
        let grown = match taken {
            Ok(taken) => taken.and_then(|taken| taken.chosen(index)),
            Err(error) => return unable(url, &LinkRefused::Keep(error)),
        };
        let Some(grown) = grown else { return nothing_done(url) };
        let (link, browser) = (grown.link.clone(), grown.browser.clone());
        let state = self.discover(&generation, known, drawer, grown).await;
        let ended = self.end(drawer, link, browser, state).await;
        ended.unwrap_or_else(|error| unable(url, &LinkRefused::Keep(error)))
    }

    /// What waits for this browser's choice, and the result id of its link.
    async fn waiting_choice(&self, integration: &str, visit: &Visit) -> Result<Option<(Choice, String)>, LinkRefused> {
        let (link_key, drawer) = self.tools().await?;
        let generation = self.live.load();
        let Some(browser) = Browser::of(&visit.headers, &generation.gateway.public_url) else { return Ok(None) };
        let Ok(Some(result)) = Fields::of(&visit.query).take("result") else { return Ok(None) };
        let Ok(link) = link_key.link_of(&result) else { return Ok(None) };
        let Some(outcome) = super::outcome::Outcome::get(drawer, link).await? else { return Ok(None) };
        if outcome.link.integration != integration || !same(&outcome.browser, &browser.digest) {
            return Ok(None);
        }
        let found = drawer.get::<Choice>(&place(&outcome.link, &browser.digest)).await?;
        let found = found.map(|(choice, _)| choice).filter(|choice| choice.ends > self.clock.now());
        Ok(found.map(|choice| (choice, result)))
    }
}
