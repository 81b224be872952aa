//! Cases of [`trunkline::store::Events`].

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use trunkline::base::clock::Timestamp;
use trunkline::base::id::{EventId, WebhookId};
use trunkline::store::DEDUPE_WINDOW;
use trunkline::store::model::{Accepted, EventFilter, EventState, Item, NewEvent, PageRequest, endpoint_name};

use super::{Engine, Lab};

pub async fn an_accepted_event_reads_back_byte_for_byte<E: Engine>(lab: Lab<E>) {
    let offered = NewEvent {
        endpoint: Some(Arc::from("ep-1")),
        query: "a=1&b=%20".to_owned(),
        headers: vec![("x-a".into(), Bytes::from_static(b"\xff\x00")), ("x-a".into(), Bytes::from_static(b""))],
        body: Bytes::from((0..=255).cycle().take(70_000).collect::<Vec<u8>>()),
        ..lab.delivery("d-1")
    };
    assert_eq!(lab.store().accept(offered.clone()).await.unwrap(), Accepted::New);
    let stored = lab.store().event(offered.id).await.unwrap().unwrap();
    assert_eq!((&stored.query, &stored.headers, &stored.body), (&offered.query, &offered.headers, &offered.body));
    let head = stored.head;
    assert_eq!((head.id, head.integration, head.endpoint), (offered.id, offered.integration, offered.endpoint));
    assert_eq!((head.event_type, head.delivery_id), (offered.event_type, offered.delivery_id));
    assert_eq!((head.received_at, head.body_bytes, head.state), (offered.received_at, 70_000, EventState::Queued));
}

pub async fn an_accepted_event_is_claimable_and_survives_a_crash<E: Engine>(lab: Lab<E>) {
    let id = lab.accept().await;
    let lab = lab.crash().await;
    assert_eq!(&lab.store().event(id).await.unwrap().unwrap().body[..], b"{\"id\":1}");
    assert_eq!(lab.claim_one().await.item, Item::Match(id));
}

pub async fn a_body_of_25_mib_is_kept<E: Engine>(lab: Lab<E>) {
    let offered = NewEvent { body: Bytes::from(vec![7; 25 << 20]), ..lab.event("big") };
    let (id, body) = (offered.id, offered.body.clone());
    lab.store().accept(offered).await.unwrap();
    let lab = lab.reopen().await;
    assert!(lab.store().event(id).await.unwrap().unwrap().body == body, "the body differs");
}

pub async fn an_unknown_event_is_none<E: Engine>(lab: Lab<E>) {
    assert!(lab.store().event(EventId::from_u128(5)).await.unwrap().is_none());
    assert!(lab.store().deliveries(EventId::from_u128(5)).await.unwrap().is_empty());
}

pub async fn a_second_delivery_with_one_id_names_the_first_event<E: Engine>(lab: Lab<E>) {
    let (first, second) = (lab.delivery("d-1"), lab.delivery("d-1"));
    let (id, other) = (first.id, second.id);
    lab.store().accept(first).await.unwrap();
    assert_eq!(lab.store().accept(second).await.unwrap(), Accepted::Duplicate(id));
    assert!(lab.store().event(other).await.unwrap().is_none());
    assert_eq!(lab.claim(10).await.len(), 1);
}

pub async fn the_scope_of_a_delivery_id_is_integration_and_endpoint<E: Engine>(lab: Lab<E>) {
    let endpoint = |name: &str| NewEvent { endpoint: Some(Arc::from(name)), ..lab.delivery("d-1") };
    let elsewhere = NewEvent { integration: Arc::from("github"), ..lab.delivery("d-1") };
    for offered in [lab.delivery("d-1"), endpoint("a"), endpoint("b"), endpoint(""), elsewhere] {
        assert_eq!(lab.store().accept(offered).await.unwrap(), Accepted::New);
    }
    // Neither do the parts run together: `ab` + `c` is not `a` + `bc`.
    let parts = |integration: &str, id: &str| NewEvent { integration: Arc::from(integration), ..lab.delivery(id) };
    assert_eq!(lab.store().accept(parts("ab", "c")).await.unwrap(), Accepted::New);
    assert_eq!(lab.store().accept(parts("a", "bc")).await.unwrap(), Accepted::New);
}

pub async fn events_without_a_delivery_id_are_never_duplicates<E: Engine>(lab: Lab<E>) {
    let ids = [lab.accept().await, lab.accept().await];
    assert_eq!(listed(&lab, EventFilter::default()).await.len(), ids.len());
}

pub async fn a_delivery_id_counts_anew_after_its_window<E: Engine>(lab: Lab<E>) {
    let first = lab.delivery("d-1");
    let id = first.id;
    lab.store().accept(first).await.unwrap();
    lab.pass(DEDUPE_WINDOW.saturating_sub(Duration::from_millis(1)));
    assert_eq!(lab.store().accept(lab.delivery("d-1")).await.unwrap(), Accepted::Duplicate(id));
    lab.pass(Duration::from_millis(2));
    assert_eq!(lab.store().accept(lab.delivery("d-1")).await.unwrap(), Accepted::New);
    assert_eq!(listed(&lab, EventFilter::default()).await.len(), 2);
}

pub async fn a_delivery_id_is_remembered_across_crash_and_restart<E: Engine>(lab: Lab<E>) {
    let first = lab.delivery("d-1");
    let id = first.id;
    lab.store().accept(first).await.unwrap();
    let lab = lab.crash().await;
    assert_eq!(lab.store().accept(lab.delivery("d-1")).await.unwrap(), Accepted::Duplicate(id));
    let lab = lab.reopen().await;
    assert_eq!(lab.store().accept(lab.delivery("d-1")).await.unwrap(), Accepted::Duplicate(id));
}

pub async fn of_concurrent_events_with_one_delivery_id_one_is_stored<E: Engine>(lab: Lab<E>) {
    for round in 0..5 {
        let name = format!("d-{round}");
        let offers = (0..40).map(|_| lab.store().accept(lab.delivery(&name)));
        let answers: Vec<_> = join_all(offers).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|answer| **answer == Accepted::New).count(), 1);
        let filter = EventFilter { delivery_id: Some(name), ..EventFilter::default() };
        let stored = listed(&lab, filter).await;
        assert_eq!(stored.len(), 1);
        assert!(answers.iter().all(|answer| [Accepted::New, Accepted::Duplicate(stored[0])].contains(answer)));
    }
}

pub async fn events_are_listed_newest_first<E: Engine>(lab: Lab<E>) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(lab.accept().await);
        lab.pass(Duration::from_millis(1));
    }
    ids.reverse();
    assert_eq!(listed(&lab, EventFilter::default()).await, ids);
}

pub async fn pages_hold_every_event_once<E: Engine>(lab: Lab<E>) {
    for _ in 0..7 {
        lab.accept().await;
        lab.pass(Duration::from_millis(1));
    }
    let all = listed(&lab, EventFilter::default()).await;
    let (mut told, mut after, mut count) = (Vec::new(), None, 0);
    loop {
        let page = lab.store().list(&EventFilter::default(), PageRequest { after, limit: 3 }).await.unwrap();
        told.extend(page.rows.iter().map(|row| row.id));
        (after, count) = (page.next, count + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!((told, count), (all, 3));
}

pub async fn each_filter_narrows_the_list<E: Engine>(lab: Lab<E>) {
    let early = lab.now();
    lab.planned(&[]).await;
    lab.pass(Duration::from_secs(1));
    let (wanted, late) = (NewEvent { integration: Arc::from("github"), ..lab.delivery("d-9") }, lab.now());
    let wanted = NewEvent { event_type: "push.tag".to_owned(), ..wanted };
    let (id, endpoint) = (wanted.id, WebhookId::from_str("whk_00000000000000000000000001").unwrap());
    let wanted = NewEvent { endpoint: Some(endpoint_name(endpoint, "team")), ..wanted };
    lab.store().accept(wanted).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let narrow = [
        EventFilter { integration: text("github"), ..EventFilter::default() },
        EventFilter { connection: text("team"), ..EventFilter::default() },
        EventFilter { webhook: Some(endpoint), ..EventFilter::default() },
        EventFilter { state: Some(EventState::Queued), ..EventFilter::default() },
        EventFilter { event_type: text("push.tag"), ..EventFilter::default() },
        EventFilter { event_type: text("p*.t*g"), ..EventFilter::default() },
        EventFilter { delivery_id: text("d-9"), ..EventFilter::default() },
        EventFilter { since: Some(late), ..EventFilter::default() },
    ];
    for filter in narrow {
        assert_eq!(listed(&lab, filter.clone()).await, [id], "{filter:?}");
    }
    assert_eq!(listed(&lab, EventFilter { event_type: text("*"), ..EventFilter::default() }).await.len(), 2);
    assert_eq!(listed(&lab, EventFilter { event_type: text("p*.t"), ..EventFilter::default() }).await, []);
    let before = |until: Timestamp| EventFilter { until: Some(until), ..EventFilter::default() };
    assert_eq!((listed(&lab, before(early)).await.len(), listed(&lab, before(late)).await.len()), (0, 1));
}

async fn listed<E: Engine>(lab: &Lab<E>, filter: EventFilter) -> Vec<EventId> {
    let page = lab.store().list(&filter, PageRequest { after: None, limit: 1_000 }).await.unwrap();
    assert_eq!(page.next, None);
    page.rows.into_iter().map(|row| row.id).collect()
}
