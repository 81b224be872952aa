//! Who may finish a flow: one, whatever is sent at the same moment.
//!
//! Before a code is exchanged or anything is stored, the link is moved to `finishing` by compare-and-swap.
//! Whoever did that has a [`Claim`], without which nothing is kept; all others are told that the link has been
//! used, and make no call. Called by `begin`, `callback` and `choose`.

use std::time::Duration;

use super::drawer::{Drawer, KeepError};
use super::failure::Failure;
use super::link::{Link, fresh_id};
use super::outcome::{self, Connected, Failed, Keeping, Outcome, Standing, State, Step};
use super::page::{prefix, see_other};
use super::pending::LIFE;
use super::{Connect, nothing_done, spent};
use crate::connection::Credential;
use crate::respond::Answer;

/// How long a flow may take from its claim to its outcome: all its calls are bounded, and no definition has
/// many. Half of the time after which a claim counts as left behind.
const LONGEST: Duration = Duration::from_mins(5);

/// The right to finish a flow: to exchange its code, to keep its connection, and to say how it ended.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub link: Link,
    pub browser: String,
    flow: String,
}

impl Claim {
    /// The flow.
    pub fn flow(&self) -> &str {
        &self.flow
    }

    /// Whether it is still in force: the connection may have been removed since.
    pub async fn stands(&self, drawer: &Drawer) -> Result<bool, KeepError> {
        let found = Outcome::get(drawer, &self.link.id).await?;
        Ok(found.is_some_and(|found| matches!(&found.state, State::Finishing { flow, .. } if *flow == self.flow)))
    }
}

impl Connect {
    /// Claims the flow of a link that waits for its callback or its choice; `None` when it may not go on: it
    /// is not the link's newest, is being finished already, or is over.
    pub(super) async fn claim(
        &self,
        drawer: &Drawer,
        (link, browser): (Link, String),
        flow: String,
    ) -> Result<Option<Claim>, KeepError> {
        self.claimed(drawer, Claim { link, browser, flow }, |flow| Step::GoOn(flow)).await
    }

    /// Claims a link for a flow that begins and ends in one step; `None` when this browser may not use it.
    pub(super) async fn claim_link(
        &self,
        drawer: &Drawer,
        link: Link,
        browser: String,
    ) -> Result<Option<Claim>, KeepError> {
        let flow = fresh_id(self.clock.now().after(LIFE), &*self.random)?;
        self.claimed(drawer, Claim { link, browser, flow }, |_| Step::Begin).await
    }

    async fn claimed(
        &self,
        drawer: &Drawer,
        claim: Claim,
        step: impl Fn(&str) -> Step<'_>,
    ) -> Result<Option<Claim>, KeepError> {
        let Claim { link, browser, flow } = claim.clone();
        let outcome = Outcome { link, browser, state: State::Finishing { flow, keeping: None }, at: self.clock.now() };
        let standing = self.settle(drawer, &outcome, step(&claim.flow)).await?;
        Ok((standing == Standing::Free).then_some(claim))
    }

    /// Finishes a claimed flow: does the work, keeps its outcome and shows it.
    pub(super) async fn finish(
        &self,
        drawer: &Drawer,
        claim: Claim,
        work: impl Future<Output = State>,
    ) -> Result<Answer, KeepError> {
        let state = tokio::time::timeout(LONGEST, work)
            .await
            .unwrap_or(State::Failed(Failed { failure: Failure::ServiceUnreachable, words: None }));
        self.end(drawer, claim, state).await
    }

    /// Keeps the outcome of a claimed flow and shows it.
    pub(super) async fn end(&self, drawer: &Drawer, claim: Claim, state: State) -> Result<Answer, KeepError> {
        let Claim { link, browser, flow } = claim;
        let outcome = Outcome { link, browser, state, at: self.clock.now() };
        if self.settle(drawer, &outcome, Step::End(&flow)).await? != Standing::Free {
            return Ok(spent(&self.live.load().gateway.public_url));
        }
        Ok(self.led_to(&outcome))
    }

    /// Leads a browser to the page of an outcome.
    pub(super) fn led_to(&self, outcome: &Outcome) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let Some(key) = self.key.get() else { return nothing_done(url) };
        let page = if matches!(outcome.state, State::Choosing { .. }) { "choose" } else { "outcome" };
        let result = key.result_of(&outcome.link.id);
        see_other(&format!("{}/api/connect/{}/{page}?result={result}", prefix(url), outcome.link.integration))
    }

    /// Notes what a claim is about to keep, so that a process after this one can tell whether it was kept.
    pub(super) async fn note_keeping(
        &self,
        drawer: &Drawer,
        claim: &Claim,
        (connected, credential): (Connected, &Credential),
    ) -> Result<(), KeepError> {
        let keeping = Some(Box::new(Keeping { connected, credential: credential.digest() }));
        let Claim { link, browser, flow } = claim.clone();
        let state = State::Finishing { flow, keeping };
        let outcome = Outcome { link, browser, state, at: self.clock.now() };
        outcome.keep(drawer, Step::End(&claim.flow)).await.map(drop)
    }

    /// Ends the claims of a process before this one, which was stopped in the middle: nobody finishes them. One whose
    /// connection was kept has connected it.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn end_left_behind(&self, drawer: &Drawer) -> Result<(), KeepError> {
        for record in drawer.records.keys(outcome::COLLECTION).await? {
            let Ok(Some((found, _))) = drawer.get::<Outcome>(&record).await else { continue };
            let State::Finishing { flow, keeping } = &found.state else { continue };
            if found.at >= self.since {
                continue;
            }
            let there = self.before(&found.link.integration, &found.link.connection).await;
            let digest = there.map(|content| content.credential.digest());
            let state = match keeping {
                Some(keeping) if digest.as_ref() == Some(&keeping.credential) => {
                    State::Connected(keeping.connected.clone())
                }
                _ => {
                    let words = Some("the gateway was stopped while it finished this sign-in".to_owned());
                    State::Failed(Failed { failure: Failure::NotKept, words })
                }
            };
            let (link, browser) = (found.link.clone(), found.browser.clone());
            self.settle(drawer, &Outcome { link, browser, state, at: self.clock.now() }, Step::End(flow)).await?;
        }
        Ok(())
    }
}
