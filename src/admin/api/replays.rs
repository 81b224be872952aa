//! `/api/replays`: many dead deliveries tried again: planned, run, watched, cancelled.
//!
//! A plan has the deliveries that fit when it is made, so that what is run is what was shown. What is run goes in small
//! parts, each in the audit log first, and stops between two of them. Plans and what became of them are in memory: after a
//! restart what was tried is tried, and what was not is in the dead-letter list as before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use super::deliveries::{anew, dead};
use super::query::{Asked, EventQuery, Named};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::clock::Timestamp;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::store::model::Delivery;

/// Events that are looked at together.
const EVENTS: usize = 500;
/// Searches that one plan makes, where its filter has a text.
const SEARCHES: usize = 10;
/// Deliveries that are tried again between two looks at whether to go on.
const PART: usize = 50;
/// Plans that are remembered; the oldest goes first, one that runs never.
const PLANS: usize = 50;

/// All plans of this process, by number.
#[derive(Debug, Default)]
pub struct Replays(Mutex<BTreeMap<u64, Replay>>);

/// A plan and what became of it.
#[derive(Debug, Clone)]
struct Replay {
    by: Arc<str>,
    at: Timestamp,
    filter: Value,
    /// What is left to try again.
    left: Vec<Delivery>,
    planned: usize,
    /// Whether more fitted than a plan may have.
    more: bool,
    actions: BTreeMap<String, usize>,
    replayed: usize,
    /// Not dead any more when their turn came.
    passed: usize,
    state: Stage,
    error: Option<String>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Planned,
    Running,
    Cancelled,
    Done,
    Failed,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl Replays {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Replay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a plan under a number that none has had, also not before a restart.
    fn put(&self, replay: Replay) -> u64 {
        let mut all = self.lock();
        let id = all.keys().next_back().map_or(0, |last| last + 1).max(replay.at.millis());
        while all.len() >= PLANS {
            let oldest = all.iter().find(|(_, replay)| replay.state != Stage::Running).map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            all.remove(&oldest);
        }
        all.insert(id, replay);
        id
    }

    fn change<T>(&self, id: u64, change: impl FnOnce(&mut Replay) -> Result<T, Refused>) -> Result<T, Refused> {
        let mut all = self.lock();
        let unknown = || {
            Refused::with_help(
                Refusal::NotFound,
                &format!("there is no replay `{id}`"),
                "plans are kept until the gateway stops",
            )
        };
        change(all.get_mut(&id).ok_or_else(unknown)?)
    }
}

/// A plan to try dead deliveries again, and what became of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Replay)]
pub struct Shown {
    /// Its number, as text.
    pub id: String,
    /// `planned`, `running`, `cancelled`, `done` or `failed`.
    pub state: &'static str,
    /// Who planned it.
    pub by: Arc<str>,
    /// When.
    #[schema(format = DateTime)]
    pub planned_at: String,
    /// The filter that selected its events.
    pub filter: Value,
    /// How many deliveries it has.
    pub planned: usize,
    /// Whether more fitted than a plan may have (`limits.replay_deliveries`), or a search (`q`) ended before it had looked
    /// through all; it has those of the newest events then.
    pub more: bool,
    /// How many there are of each action.
    pub actions: BTreeMap<String, usize>,
    /// How many were tried again.
    pub replayed: usize,
    /// How many were not dead any more when their turn came.
    pub passed_over: usize,
    /// Why it stopped before its end.
    pub error: Option<String>,
}

/// All that are remembered, newest first.
#[utoipa::path(get, path = "/api/replays", tag = "replays", responses((status = 200, body = [Shown])))]
pub async fn list(State(parts): Shared) -> Json<Vec<Shown>> {
    Json(rows(&parts))
}

/// All that are remembered, newest first.
pub fn rows(parts: &Parts) -> Vec<Shown> {
    parts.replays.lock().iter().rev().map(|(id, replay)| replay.shown(*id)).collect()
}

/// One of them.
#[utoipa::path(get, path = "/api/replays/{id}", tag = "replays",
    params(("id" = u64, Path, description = "The replay")),
    responses((status = 200, body = Shown), (status = 404, description = "not_found")))]
pub async fn show(State(parts): Shared, Named(id): Named<u64>) -> Result<Json<Shown>, Refused> {
    one(&parts, id).map(Json)
}

/// One of them.
///
/// # Errors
/// When there is none of this number.
pub fn one(parts: &Parts, id: u64) -> Result<Shown, Refused> {
    parts.replays.change(id, |replay| Ok(replay.shown(id)))
}

/// Makes a plan of the dead deliveries of the events that a filter selects.
#[utoipa::path(post, path = "/api/replays", tag = "replays", params(EventQuery),
    responses((status = 201, body = Shown), (status = 404, description = "not_found")))]
pub async fn plan(
    State(parts): Shared,
    By(by): By,
    Asked(query): Asked<EventQuery>,
) -> Result<(StatusCode, Json<Shown>), Refused> {
    let id = make(&parts, &by, query).await?;
    Ok((StatusCode::CREATED, Json(one(&parts, id)?)))
}

/// Makes a plan, and returns its number.
///
/// # Errors
/// When a parameter is not right, or the store fails.
pub async fn make(parts: &Parts, by: &Arc<str>, query: EventQuery) -> Result<u64, Refused> {
    let mut query = query.of_the_dead().limited(EVENTS);
    let filter = query.shown();
    let most = parts.live.load().gateway.limits.replay_deliveries;
    let (mut left, mut searches) = (Vec::new(), 0);
    let more = loop {
        let found = dead(parts, &query).await?;
        left.extend(found.rows.into_iter().map(|(_, delivery)| delivery));
        searches += usize::from(query.text().is_some());
        match found.next {
            Some(next) if left.len() < most && searches < SEARCHES => query = query.after(next),
            next => break next.is_some() || left.len() > most,
        }
    };
    left.truncate(most);
    if more && searches < SEARCHES {
        parts.metrics.admin_limits_reached.with_label_values(&["replay_deliveries"]).inc();
    }
    let actions = left.iter().fold(BTreeMap::new(), |mut counts, delivery| {
        *counts.entry(delivery.summary.clone()).or_insert(0_usize) += 1;
        counts
    });
    let (planned, at) = (left.len(), parts.clock.now());
    let replay = Replay {
        by: Arc::clone(by),
        at,
        filter,
        left,
        planned,
        more,
        actions,
        replayed: 0,
        passed: 0,
        state: Stage::Planned,
        error: None,
    };
    Ok(parts.replays.put(replay))
}

/// Begins to run a plan.
#[utoipa::path(post, path = "/api/replays/{id}/run", tag = "replays",
    params(("id" = u64, Path, description = "The replay")),
    responses((status = 202, body = Shown), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn run(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<u64>,
) -> Result<(StatusCode, Json<Shown>), Refused> {
    start(&parts, &by, id).await?;
    Ok((StatusCode::ACCEPTED, Json(one(&parts, id)?)))
}

/// Begins to run a plan; returns while it runs.
///
/// # Errors
/// When there is none of this number, it has been run, or the audit log cannot be written.
pub async fn start(parts: &Arc<Parts>, by: &str, id: u64) -> Result<(), Refused> {
    let detail = parts.replays.change(id, |replay| {
        if replay.state != Stage::Planned {
            return Err(Refused::new(Refusal::Conflict, &format!("it is {} already", replay.state.word())));
        }
        replay.state = Stage::Running;
        Ok(json!({ "deliveries": replay.planned, "filter": replay.filter }))
    })?;
    let noted = parts.store.append(entry(parts, by, "replay.run", format!("replay:{id}"), detail)).await;
    if let Err(error) = noted {
        parts.replays.change(id, |replay| {
            replay.state = Stage::Planned;
            Ok(())
        })?;
        return Err(error.into());
    }
    let (parts, by) = (Arc::clone(parts), Arc::<str>::from(by));
    drop(tokio::spawn(async move { go_on(&parts, &by, id).await }));
    Ok(())
}

/// Tries part after part until nothing is left, someone cancels it or the store fails.
async fn go_on(parts: &Parts, by: &str, id: u64) {
    loop {
        let part = parts.replays.change(id, |replay| {
            if replay.left.is_empty() && replay.state == Stage::Running {
                replay.state = Stage::Done;
            }
            let count = if replay.state == Stage::Running { replay.left.len().min(PART) } else { 0 };
            Ok(replay.left.drain(..count).collect::<Vec<_>>())
        });
        let Ok(part) = part else { return };
        if part.is_empty() {
            return;
        }
        if let Err(error) = try_part(parts, by, (id, &part)).await {
            tracing::error!(replay = id, "a replay of dead deliveries stops: {error}");
            // It is there: nothing that runs is forgotten.
            _ = parts.replays.change(id, |replay| {
                (replay.state, replay.error) = (Stage::Failed, Some(error.to_string()));
                Ok(())
            });
            return;
        }
    }
}

async fn try_part(parts: &Parts, by: &str, (id, part): (u64, &[Delivery])) -> Result<(), StoreError> {
    let ids: Vec<_> = part.iter().map(|delivery| delivery.id).collect();
    let detail = json!({ "deliveries": ids, "replay": id });
    parts.store.append(entry(parts, by, "delivery.replay", "deliveries:dead".to_owned(), detail)).await?;
    for delivery in part {
        let tried = match anew(parts, delivery).await {
            Ok(()) => true,
            // Someone else was quicker, or retention was: either way it is not dead any more.
            Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => false,
            Err(error) => return Err(error),
        };
        _ = parts.replays.change(id, |replay| {
            *(if tried { &mut replay.replayed } else { &mut replay.passed }) += 1;
            Ok(())
        });
    }
    Ok(())
}

/// Stops one that runs, or drops a plan.
#[utoipa::path(post, path = "/api/replays/{id}/cancel", tag = "replays",
    params(("id" = u64, Path, description = "The replay")),
    responses((status = 202, body = Shown), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn cancel(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<u64>,
) -> Result<(StatusCode, Json<Shown>), Refused> {
    stop(&parts, &by, id).await?;
    Ok((StatusCode::ACCEPTED, Json(one(&parts, id)?)))
}

/// Stops one that runs, or drops a plan: what is under way ends, and nothing more is begun.
///
/// # Errors
/// When there is none of this number, it has ended, or the audit log cannot be written.
pub async fn stop(parts: &Parts, by: &str, id: u64) -> Result<(), Refused> {
    let ended = |replay: &Replay| Refused::new(Refusal::Conflict, &format!("it is {} already", replay.state.word()));
    let goes_on = |replay: &Replay| matches!(replay.state, Stage::Planned | Stage::Running);
    parts.replays.change(id, |replay| if goes_on(replay) { Ok(()) } else { Err(ended(replay)) })?;
    parts.store.append(entry(parts, by, "replay.cancel", format!("replay:{id}"), Value::Null)).await?;
    parts.replays.change(id, |replay| {
        if !goes_on(replay) {
            return Err(ended(replay));
        }
        replay.state = Stage::Cancelled;
        Ok(())
    })
}

impl Replay {
    fn shown(&self, id: u64) -> Shown {
        Shown {
            id: id.to_string(),
            state: self.state.word(),
            by: Arc::clone(&self.by),
            planned_at: self.at.to_string(),
            filter: self.filter.clone(),
            planned: self.planned,
            more: self.more,
            actions: self.actions.clone(),
            replayed: self.replayed,
            passed_over: self.passed,
            error: self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(state: Stage) -> Replay {
        Replay {
            by: Arc::from("ada"),
            at: Timestamp::from_millis(7),
            filter: Value::Null,
            left: Vec::new(),
            planned: 0,
            more: false,
            actions: BTreeMap::new(),
            replayed: 0,
            passed: 0,
            state,
            error: None,
        }
    }

    #[test]
    fn the_oldest_plan_goes_first_and_one_that_runs_never() {
        let replays = Replays::default();
        let first = replays.put(replay(Stage::Running));
        let second = replays.put(replay(Stage::Done));
        assert_eq!((first, second), (7, 8), "a number is given once");
        (0..PLANS).for_each(|_| _ = replays.put(replay(Stage::Planned)));
        let all = replays.lock();
        assert_eq!((all.len(), all.contains_key(&first), all.contains_key(&second)), (PLANS, true, false));
    }
}
