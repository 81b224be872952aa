//! A link connects one account, once, whatever is sent at the same moment.

use futures_util::future::join_all;

use super::desk::{Browser, Desk, target};

/// Sends a form many times at once from one browser. Answers the statuses in order.
async fn at_once(desk: &Desk, browser: &Browser<'_>, (target, form): (&str, &str)) -> Vec<u16> {
    let sent = (0..10).map(|_| {
        let mut each = Browser::new(desk);
        each.cookie.clone_from(&browser.cookie);
        async move { each.post(target, form).await.status }
    });
    let mut statuses = join_all(sent).await;
    statuses.sort_unstable();
    statuses
}

/// How many times the audit log has an action.
async fn told(desk: &Desk, action: &str) -> usize {
    desk.audit().await.iter().filter(|(known, _)| known == action).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_forms_with_a_key_one_is_kept() {
    let desk = Desk::open().await;
    let made = desk.link_for(|wanted| wanted.integration = "keyed".to_owned()).await;
    let mut browser = Browser::new(&desk);
    browser.get(target(&made.url)).await;
    let statuses = at_once(&desk, &browser, (target(&made.url), "api_key=sk_canary")).await;
    assert_eq!((statuses[0], &statuses[1..]), (303, &[410; 9][..]));
    assert_eq!((told(&desk, "connection.put").await, told(&desk, "connect.end").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_flow_of_a_link_goes_on() {
    let desk = Desk::open().await;
    let (mut browser, made) = desk.departed().await;
    let older = desk.service.state();
    browser.post(target(&made.url), "input.site=main").await;
    assert_eq!(desk.records("connect_flows").await, 1);
    let late = browser.callback(&format!("state={older}&code=c")).await;
    assert_eq!((late.status, late.code()), (410, Some("link_over")));
    assert_eq!((desk.service.token_calls(), desk.token().await), (0, None));
    assert!(browser.succeed().await.text().contains("is connected"));
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_flows_begun_at_once_one_goes_on() {
    let desk = Desk::open().await;
    let made = desk.link().await;
    let mut browser = Browser::new(&desk);
    browser.get(target(&made.url)).await;
    let begun = at_once(&desk, &browser, (target(&made.url), "input.site=main")).await;
    assert_eq!((begun, desk.records("connect_flows").await), (vec![200; 10], 1));
    let states: Vec<_> = desk.service.departures.lock().unwrap().iter().map(|left| left.0.clone()).collect();
    let mut answers = Vec::new();
    for state in states {
        answers.push(browser.callback(&format!("state={state}&code=c")).await.status);
    }
    answers.sort_unstable();
    assert_eq!((answers[0], desk.service.token_calls(), told(&desk, "connection.put").await), (303, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_connection_is_not_brought_back_by_a_flow_that_was_under_way() {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    let (mut browser, made) = desk.departed().await;
    desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
    let late = browser.callback(&format!("state={}&code=c", desk.service.state())).await;
    assert_eq!((late.status, late.code()), (410, Some("link_over")));
    assert_eq!(browser.get(target(&made.url)).await.status, 410);
    assert_eq!((desk.service.token_calls(), desk.token().await), (1, None));
    let shown = desk.connect.outcome(&made.result).await.unwrap().unwrap();
    assert_eq!(super::desk::error_of(&shown)["code"], "removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_loaded_again_tells_its_own_browser_what_came_of_it() {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    let query = format!("state={}&code=c", desk.service.state());
    let first = browser.callback(&query).await;
    let again = browser.callback(&query).await;
    assert_eq!((again.status, again.header("location")), (303, first.header("location")));
    let stranger = Browser::new(&desk).callback(&query).await;
    assert_eq!((stranger.status, stranger.code()), (400, Some("flow_unknown")));
    assert_eq!((desk.service.token_calls(), told(&desk, "connect.refused").await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_a_crash_cut_off_can_be_begun_again_at_once() {
    let desk = Desk::open().await;
    let (mut browser, made) = desk.departed().await;
    let state = desk.service.state();
    // The process goes in the middle of the token call.
    desk.service.set(|manners| manners.hangs = true);
    let query = format!("state={state}&code=c");
    let cut_off = tokio::time::timeout(std::time::Duration::from_millis(500), browser.callback(&query)).await;
    assert!(cut_off.is_err());
    assert_eq!(browser.get(target(&made.url)).await.status, 410, "it is being finished");
    desk.clock.advance(std::time::Duration::from_secs(1));
    let next = desk.another();
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    next.tell_services(stop).await;
    let shown = next.outcome(&made.result).await.unwrap().unwrap();
    assert_eq!((shown.state, &super::desk::error_of(&shown)["code"]), ("failed", &serde_json::json!("not_kept")));
    assert_eq!(browser.get(target(&made.url)).await.status, 200);
}

/// What a process that begins now says of a link.
async fn after_a_crash(desk: &Desk, result: &str) -> trunkline::connection::connect::Shown {
    desk.clock.advance(std::time::Duration::from_secs(1));
    let next = desk.another();
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    next.tell_services(stop).await;
    next.outcome(result).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_a_link_says_whether_its_connection_was_kept() {
    // The claim is written, then what is to be kept, then the connection, then the outcome.
    for (writes, state, token) in [(1, "failed", None), (2, "connected", Some("canary-access-1"))] {
        let desk = Desk::open().await;
        let (mut browser, made) = desk.departed().await;
        let query = format!("state={}&code=c", desk.service.state());
        desk.cut_after(writes);
        let cut_off = tokio::time::timeout(std::time::Duration::from_secs(2), browser.callback(&query)).await;
        assert!(cut_off.is_err(), "{writes}");
        let shown = after_a_crash(&desk, &made.result).await;
        assert_eq!((shown.state, desk.token().await.as_deref()), (state, token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_cuts_off_after_a_choice_is_taken_back() {
    let desk = Desk::open().await;
    let choices = ["Alpha", "Beta"].map(|label| (label, serde_json::json!({ "site_id": label })));
    desk.service.set(|manners| manners.choices = choices.to_vec());
    let (mut browser, made) = desk.departed().await;
    browser.succeed().await;
    desk.cut_after(1);
    let place = format!("/api/connect/hub/choose?result={}", made.result);
    let cut_off = tokio::time::timeout(std::time::Duration::from_secs(2), browser.post(&place, "choice=1")).await;
    assert!(cut_off.is_err());
    assert_eq!(after_a_crash(&desk, &made.result).await.state, "failed");
    assert_eq!((desk.records("connect_choices").await, desk.records("revocations").await), (1, 0));
    desk.clock.advance(std::time::Duration::from_mins(12));
    after_a_crash(&desk, &made.result).await;
    assert_eq!((desk.records("connect_choices").await, desk.records("revocations").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_of_an_older_flow_connects_nothing() {
    let desk = Desk::open().await;
    let choices = ["Alpha", "Beta"].map(|label| (label, serde_json::json!({ "site_id": label })));
    desk.service.set(|manners| manners.choices = choices.to_vec());
    let (mut browser, made) = desk.departed().await;
    browser.succeed().await;
    browser.post(target(&made.url), "input.site=main").await;
    let place = format!("/api/connect/hub/choose?result={}", made.result);
    assert!(browser.post(&place, "choice=1").await.status >= 400);
    assert_eq!(desk.token().await, None);
}
