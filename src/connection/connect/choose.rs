//! The choice between several sites or accounts, between the grant and the connection.
//!
//! Until a person has chosen there is no connection: what was granted waits, sealed, as long as a flow
//! does. Choosing takes it, once.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::browser::{Browser, same};
use super::claim::Claim;
use super::door::Visit;
use super::drawer::{Drawer, Enclosed, KeepError, key};
use super::failure::Failure;
use super::finish::{Grown, keep_account};
use super::link::{Fields, Link, expires, moment};
use super::outcome::{Failed, Outcome, State, Step};
use super::page::{Page, prefix};
use super::pending::LIFE;
use super::permission::Form;
use super::provider::Who;
use super::revocations::{Revocations, What};
use super::tell::Tampering;
use super::trial::Proof;
use super::{Connect, LinkRefused, begin, nothing_done, spent, unable};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::grant::Grant;
use crate::connection::health::Key;
use crate::connection::{Content, Credential, Tokens, stored};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::request::answer::plain_words;
use crate::respond::{Answer, Refusal};

/// The collection of what waits for a choice.
pub const COLLECTION: &str = "connect_choices";
/// How long after its end a choice is given up: who chose at the last moment has taken it by then.
const GRACE: Duration = Duration::from_mins(1);
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
    flow: String,
    scopes: Vec<String>,
    /// Tokens, inputs and saved values, as a connection keeps them.
    content: Enclosed,
    account: (Option<String>, Option<String>),
    /// Absent in what a version before kept.
    #[serde(default)]
    email: Option<String>,
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
            *label = plain_words(label).chars().take(LABEL).collect();
        }
        let Grown { claim, scopes, inputs, grant, who, notes, step, .. } = grown;
        let flow = claim.flow().to_owned();
        let Claim { link, browser, .. } = claim;
        let content = Content { credential: Credential::Tokens(Tokens(grant.tokens)), inputs, saved: grant.saved };
        let plain = stored::plain(&content, now).map_err(|_| KeepError::Form)?;
        let text = std::str::from_utf8(&plain).map_err(|_| KeepError::Form)?;
        let Who { id, name, email } = who.unwrap_or_default();
        let key = place(&link, &browser);
        let (content, account, ends) = (Enclosed(Secret::from(text)), (id, name), now.after(LIFE));
        let choice = Self { link, browser, flow, scopes, content, account, email, notes, step, choices, ends };
        drawer.put(&key, &choice, None).await.map(drop)
    }

    /// What was granted, and whose account it is.
    fn granted(&self) -> Option<Content> {
        let mut content = stored::read(self.content.0.expose().as_bytes()).ok()?;
        let ((id, name), email) = (self.account.clone(), self.email.clone());
        keep_account(&mut content.saved, Some(Who { id, name, email }));
        Some(content)
    }

    /// The connection that grows on with this choice.
    fn chosen(self, index: usize, claim: Claim) -> Option<Grown> {
        let content = self.granted()?;
        let (_, values) = self.choices.into_iter().nth(index)?;
        let Credential::Tokens(Tokens(tokens)) = content.credential else { return None };
        let mut saved = content.saved;
        saved.extend(values);
        let ((id, name), email) = (self.account, self.email);
        let who = (id.is_some() || name.is_some()).then_some(Who { id, name, email });
        Some(Grown {
            claim,
            scopes: self.scopes,
            inputs: content.inputs,
            entered: None,
            grant: Grant { tokens, saved, ..Grant::default() },
            who,
            notes: self.notes,
            step: self.step + 1,
            proof: Proof::None,
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
        let chosen = self.go_on(drawer, (&generation, known), choice, index).await;
        chosen.unwrap_or_else(|error| unable(url, &LinkRefused::Keep(error)))
    }

    /// Goes on with a choice, unless the link is no longer this flow's.
    async fn go_on(
        &self,
        drawer: &Drawer,
        (generation, integration): (&Generation, &Arc<Integration>),
        choice: Choice,
        index: usize,
    ) -> Result<Answer, KeepError> {
        let url = &generation.gateway.public_url;
        let whose = (choice.link.clone(), choice.browser.clone());
        let Some(claim) = self.claim(drawer, whose, choice.flow.clone()).await? else { return Ok(spent(url)) };
        let (record, link) = (place(&choice.link, &choice.browser), choice.link.id.clone());
        let Some(grown) = choice.chosen(index, claim.clone()) else { return Ok(nothing_done(url)) };
        let answer =
            self.finish(drawer, claim, Box::pin(self.discover(generation, integration, drawer, grown))).await?;
        // Until now it is what is known of the tokens, should the process end; a further choice is in its place.
        let goes_on =
            Outcome::get(drawer, &link).await?.is_some_and(|found| matches!(found.state, State::Choosing { .. }));
        if !goes_on {
            drawer.records.remove(&record).await?;
        }
        Ok(answer)
    }

    /// Has services told of what was granted for a choice that nobody made in time.
    ///
    /// # Errors
    /// When the store fails. What is not let go of then is the next time.
    pub(super) async fn give_up_choices(&self, revocations: &Revocations) -> Result<(), KeepError> {
        let (drawer, now) = (&revocations.drawer, self.clock.now());
        for record in drawer.records.keys(COLLECTION).await? {
            let choice = match drawer.get::<Choice>(&record).await {
                Ok(Some((choice, _))) if choice.ends.after(GRACE) <= now => Some(choice),
                Err(KeepError::Store(error)) => return Err(error.into()),
                // One that does not open is of no use to anyone once its time is over.
                Err(_) if expires(&record.key).is_none_or(|end| end <= now) => None,
                Ok(_) | Err(_) => continue,
            };
            if let Some(choice) = choice {
                match Outcome::get(drawer, &choice.link.id).await?.map(|found| found.state) {
                    // Somebody chose, and it is being finished.
                    Some(State::Finishing { flow, .. }) if flow == choice.flow => continue,
                    Some(State::Connected(_)) => {
                        drawer.records.remove(&record).await?;
                        continue;
                    }
                    _ => {}
                }
                if let Some(content) = choice.granted() {
                    let key = Key::new(&choice.link.integration, &choice.link.connection);
                    revocations.queue(&key, What::Unchosen, &content).await?;
                }
                let Choice { link, browser, flow, .. } = choice;
                let state = State::Failed(Failed { failure: Failure::NotInTime, words: None });
                self.settle(&revocations.drawer, &Outcome { link, browser, state, at: now }, Step::GoOn(&flow)).await?;
            }
            drawer.records.remove(&record).await?;
        }
        Ok(())
    }

    /// What waits for this browser's choice, and the result id of its link.
    async fn waiting_choice(&self, integration: &str, visit: &Visit) -> Result<Option<(Choice, String)>, LinkRefused> {
        let (link_key, drawer) = self.tools().await?;
        let generation = self.live.load();
        let Some(browser) = Browser::of(&visit.headers, &generation.gateway.public_url) else { return Ok(None) };
        let Ok(Some(result)) = Fields::of(&visit.query).take("result") else { return Ok(None) };
        let Ok(link) = link_key.link_of(&result) else { return Ok(None) };
        let Some(outcome) = Outcome::get(drawer, link).await? else { return Ok(None) };
        if outcome.link.integration != integration || !same(&outcome.browser, &browser.digest) {
            return Ok(None);
        }
        let found = drawer.get::<Choice>(&place(&outcome.link, &browser.digest)).await?;
        let waits = |choice: &Choice| match &outcome.state {
            State::Choosing { flow } => *flow == choice.flow && choice.ends > self.clock.now(),
            _ => false,
        };
        let found = found.map(|(choice, _)| choice).filter(waits);
        Ok(found.map(|choice| (choice, result)))
    }
}
