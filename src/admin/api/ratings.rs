//! `/api/integrations/{id}/ratings`: what this deployment's own people think of an integration.
//!
//! One rating a person and integration, of one to five with a comment, which they may change or take back. An integration
//! is one record of the store. Nothing of it comes from elsewhere: without a rating there is none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use super::marketplace;
use super::query::{Named, Sent};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::clock::Timestamp;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::store::model::RecordKey;

const COLLECTION: &str = "ratings";
const FORMAT: u32 = 1;
/// The most bytes of a comment.
const COMMENT: usize = 1_000;
/// The most ratings of an integration; a record of the store has room for these.
const MOST: usize = 200;
/// How often a change is tried again when another came between.
const TRIES: usize = 5;

/// What someone thinks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RatingGiven)]
pub struct Given {
    /// One to five.
    #[schema(minimum = 1, maximum = 5)]
    pub stars: u8,
    /// Why.
    #[serde(default)]
    pub comment: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    /// By who gave them.
    ratings: BTreeMap<String, Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    stars: u8,
    comment: Option<String>,
    at: Timestamp,
}

/// The mean of some ratings, to a tenth, and how many they are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    /// `None` without any.
    pub rating: Option<f64>,
    /// How many.
    pub count: usize,
}

impl Record {
    fn mean(&self) -> Mean {
        let count = self.ratings.len();
        let sum: u64 = self.ratings.values().map(|kept| u64::from(kept.stars)).sum();
        // Tenths, rounded half up: at most 50, which a float has exactly.
        let tenths =
            (sum * 20 + count as u64).checked_div(count as u64 * 2).and_then(|tenths| u32::try_from(tenths).ok());
        Mean { rating: tenths.map(|tenths| f64::from(tenths) / 10.0), count }
    }
}

/// The ratings of an integration.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Ratings {
    /// Their mean, to a tenth; null without any.
    pub rating: Option<f64>,
    /// How many there are.
    pub count: usize,
    /// All of them, the newest first.
    pub ratings: Vec<RatingShown>,
}

/// What one person thinks.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Rating)]
pub struct RatingShown {
    /// Who.
    pub by: String,
    /// One to five.
    pub stars: u8,
    /// Why.
    pub comment: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
}

/// All ratings of an integration.
#[utoipa::path(get, path = "/api/integrations/{id}/ratings", tag = "ratings",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Ratings), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn show(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Ratings>, Refused> {
    describe(&parts, &id).await.map(Json)
}

/// Gives one, or changes the one that was given before.
#[utoipa::path(put, path = "/api/integrations/{id}/rating", tag = "ratings",
    params(("id" = String, Path, description = "The integration")), request_body = Given,
    responses((status = 200, body = Ratings), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn give(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<String>,
    Sent(given): Sent<Given>,
) -> Result<Json<Ratings>, Refused> {
    keep(&parts, &by, &id, given).await?;
    describe(&parts, &id).await.map(Json)
}

/// Takes back what was given.
#[utoipa::path(delete, path = "/api/integrations/{id}/rating", tag = "ratings",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Ratings), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn forget(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Ratings>, Refused> {
    take_back(&parts, &by, &id).await?;
    describe(&parts, &id).await.map(Json)
}

/// All ratings of an integration, the newest first.
///
/// # Errors
/// When there is no such integration, or the store fails.
pub async fn describe(parts: &Parts, id: &str) -> Result<Ratings, Refused> {
    known(parts, id).await?;
    let (record, _) = read(parts, id).await?;
    let Mean { rating, count } = record.mean();
    let mut rows: Vec<_> = record.ratings.into_iter().collect();
    rows.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.at));
    let row = |(by, kept): (String, Kept)| RatingShown {
        by,
        stars: kept.stars,
        comment: kept.comment,
        at: kept.at.to_string(),
    };
    Ok(Ratings { rating, count, ratings: rows.into_iter().map(row).collect() })
}

/// Keeps a rating of who gives it.
///
/// # Errors
/// When it is none, there is no such integration, or the store fails.
pub async fn keep(parts: &Parts, by: &str, id: &str, given: Given) -> Result<(), Refused> {
    let refuse = |detail: &str| Refused::new(Refusal::InvalidInput, detail);
    if !(1..=5).contains(&given.stars) {
        return Err(refuse("`stars` is not one of 1 to 5"));
    }
    let comment = given.comment.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if comment.as_ref().is_some_and(|text| text.len() > COMMENT) {
        return Err(refuse(&format!("`comment` has more than {COMMENT} bytes")));
    }
    known(parts, id).await?;
    let detail = json!({ "stars": given.stars });
    parts.store.append(entry(parts, by, "integration.rate", format!("integration:{id}"), detail)).await?;
    let kept = Kept { stars: given.stars, comment, at: parts.clock.now() };
    change(parts, id, |ratings| {
        if ratings.len() >= MOST && !ratings.contains_key(by) {
            return Err(Refused::new(
                Refusal::Conflict,
                &format!("it has {MOST} ratings already, and no more are kept"),
            ));
        }
        ratings.insert(by.to_owned(), kept.clone());
        Ok(())
    })
    .await
}

/// Takes a rating back.
///
/// # Errors
/// When there is no such integration, or the store fails.
pub async fn take_back(parts: &Parts, by: &str, id: &str) -> Result<(), Refused> {
    known(parts, id).await?;
    let detail = json!({ "stars": null });
    parts.store.append(entry(parts, by, "integration.rate", format!("integration:{id}"), detail)).await?;
    change(parts, id, |ratings| {
        ratings.remove(by);
        Ok(())
    })
    .await
}

/// The means of all integrations that have ratings.
///
/// # Errors
/// When the store fails.
pub async fn means(parts: &Parts) -> Result<HashMap<String, Mean>, Refused> {
    let mut means = HashMap::new();
    for key in parts.store.keys(COLLECTION).await? {
        means.insert(key.key.to_string(), read(parts, &key.key).await?.0.mean());
    }
    Ok(means)
}

async fn known(parts: &Parts, id: &str) -> Result<(), Refused> {
    let unknown = || Refused::new(Refusal::NotFound, &format!("there is no integration `{id}`"));
    marketplace::one(parts, id).await?.map(|_| ()).ok_or_else(unknown)
}

fn key(id: &str) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(id) }
}

async fn read(parts: &Parts, id: &str) -> Result<(Record, u64), Refused> {
    let Some((bytes, version)) = parts.store.get(&key(id)).await? else {
        return Ok((Record { format: FORMAT, ratings: BTreeMap::new() }, 0));
    };
    let record = serde_json::from_slice(&bytes).map_err(|error| {
        tracing::error!(integration = id, "the ratings of `{id}` are not understood: {error}");
        Refused::new(Refusal::Internal, "the ratings are not understood")
    })?;
    Ok((record, version))
}

async fn change(
    parts: &Parts,
    id: &str,
    change: impl Fn(&mut BTreeMap<String, Kept>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    for _ in 0..TRIES {
        let (mut record, version) = read(parts, id).await?;
        change(&mut record.ratings)?;
        let bytes = serde_json::to_vec(&record).map_err(|error| Refused::new(Refusal::Internal, &error.to_string()))?;
        match parts.store.put(&key(id), Bytes::from(bytes), Some(version)).await {
            Err(StoreError::Conflict(_)) => {}
            ended => return ended.map(|_| ()).map_err(Refused::from),
        }
    }
    Err(Refused::new(Refusal::Conflict, "others rate it at the same time: try again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_to_a_tenth_and_none_without_any() {
        let mean = |stars: &[u8]| {
            let kept = |stars| Kept { stars, comment: None, at: Timestamp::default() };
            let ratings = stars.iter().enumerate().map(|(by, stars)| (by.to_string(), kept(*stars))).collect();
            Record { format: FORMAT, ratings }.mean()
        };
        assert_eq!(mean(&[]), Mean { rating: None, count: 0 });
        assert_eq!(mean(&[4]), Mean { rating: Some(4.0), count: 1 });
        assert_eq!(mean(&[5, 4, 4]).rating, Some(4.3));
        assert_eq!(mean(&[5, 5, 4, 4, 5, 5]).rating, Some(4.7));
        assert_eq!(mean(&[1, 2, 1, 1]).rating, Some(1.3), "1.25 is rounded up");
    }
}
