//! Budgets and turns by numbers.

use super::*;
use crate::base::units::Rate;

const LIMIT: Rate = Rate { count: 10, period: Duration::from_secs(1) };

fn limit(per: Scope, burst: u32) -> Limit {
    Limit {
        name: "x".into(),
        rate: LIMIT,
        burst,
        per,
        endpoint: None,
        paths: Vec::new(),
        methods: Vec::new(),
        wait: Duration::from_secs(30),
    }
}

fn claim(caller: &str, connection: &str, limits: &[usize]) -> Claim {
    Claim {
        connection: connection.into(),
        caller: caller.into(),
        endpoint: "".into(),
        limits: limits.to_vec(),
        count: 0,
        is_patient: true,
        lane: Lane::Turn,
    }
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(1_000_000 + millis)
}

fn waiting<W>(id: u64, claim: Claim, call: W) -> Waiting<W> {
    Waiting { id, claim, until: Duration::MAX, call }
}

fn goes(gate: &mut Gate<usize>, claim: &Claim, now: Duration) -> bool {
    let free = gate.look(claim, now).is_none();
    if free {
        gate.take(claim, now);
    }
    free
}

#[test]
fn a_call_takes_from_all_its_budgets_or_from_none() {
    let limits = [limit(Scope::Integration, 3), limit(Scope::Connection, 1)];
    let mut gate = Gate::<usize>::new(&limits, 0, None);
    let a = claim("app", "a", &[0, 1]);
    assert!(goes(&mut gate, &a, at(0)));
    for _ in 0..10 {
        assert!(!goes(&mut gate, &a, at(0)), "its own is used up");
    }
    let all = [claim("app", "b", &[0, 1]), claim("app", "c", &[0, 1])];
    assert!(all.iter().all(|claim| goes(&mut gate, claim, at(0))), "the refusals took nothing of the common one");
    let later = gate.look(&claim("app", "d", &[0, 1]), at(0)).expect("three have gone");
    assert_eq!((later.at, later.limit), (at(100), Some(0)));
}

#[test]
fn what_did_not_go_is_given_back() {
    let mut gate = Gate::<usize>::new(&[limit(Scope::Caller, 1)], 0, None);
    let a = claim("app", "a", &[0]);
    assert!(goes(&mut gate, &a, at(0)) && !goes(&mut gate, &a, at(0)));
    gate.give_back(&a);
    assert!(goes(&mut gate, &a, at(0)));
    assert!(goes(&mut gate, &claim("other", "a", &[0]), at(0)), "another caller has its own");
}

/// Jain's index: one when all get the same, one of n when one gets all.
fn fairness(shares: &[f64; 50]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (50.0 * shares.iter().map(|share| share * share).sum::<f64>())
}

#[test]
fn fifty_callers_at_one_limited_service_get_the_same() {
    let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
    let (mut served, mut id) = ([0_u32; 50], 0);
    // Caller number n always has n + 1 calls waiting: the greediest has fifty times what the first has.
    for (number, _) in served.iter().enumerate() {
        for _ in 0..=number {
            id += 1;
            let refused = gate.wait(waiting(id, claim(&number.to_string(), "one", &[0]), number), 10_000);
            assert_eq!(refused, None);
        }
    }
    let mut now = at(0);
    for _ in 0..2_000 {
        let mut gone = Vec::new();
        let next = gate.release(now, |number, _| {
            gone.push(number);
            true
        });
        for number in gone {
            served[number] += 1;
            id += 1;
            gate.wait(waiting(id, claim(&number.to_string(), "one", &[0]), number), 10_000);
        }
        now = next.expect("somebody waits").max(now + Duration::from_millis(1));
    }
    let shares = served.map(f64::from);
    let total: f64 = shares.iter().sum();
    assert!((1_990.0..=2_010.0).contains(&total), "one in 100 ms: {total}");
    assert!(fairness(&shares) >= 0.999, "{} {served:?}", fairness(&shares));
}

#[test]
fn one_used_up_connection_does_not_hold_up_another_of_the_same_caller() {
    let mut gate = Gate::new(&[limit(Scope::Connection, 1)], 0, None);
    assert!(goes_of(&mut gate, "a"));
    for (id, connection) in [(1, "a"), (2, "a"), (3, "b")] {
        gate.wait(waiting(id, claim("app", connection, &[0]), connection), 10);
    }
    let mut gone = Vec::new();
    let next = gate.release(at(0), |connection, _| {
        gone.push(connection);
        true
    });
    assert_eq!((gone, next, gate.waiting()), (vec!["b"], Some(at(100)), 2));
}

fn goes_of(gate: &mut Gate<&str>, connection: &str) -> bool {
    let claim = claim("app", connection, &[0]);
    let free = gate.look(&claim, at(0)).is_none();
    gate.take(&claim, at(0));
    free
}

#[test]
fn a_caller_that_went_away_costs_no_token() {
    let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
    for id in 0..3 {
        gate.wait(waiting(id, claim(&id.to_string(), "a", &[0]), id), 10);
    }
    assert!(gate.leave(1) && !gate.leave(1));
    let mut asked = Vec::new();
    gate.release(at(0), |id, _| {
        asked.push(id);
        id != 0
    });
    assert_eq!(asked, [0, 2], "the first is gone, and what it took went to the next");
}

#[test]
fn the_queue_is_bounded_and_its_room_goes_to_those_who_have_less() {
    let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
    for id in 0..4 {
        assert_eq!(gate.wait(waiting(id, claim("greedy", "a", &[0]), id), 4), None);
    }
    assert_eq!(gate.wait(waiting(4, claim("greedy", "a", &[0]), 4), 4), Some(4));
    assert_eq!(gate.wait(waiting(5, claim("modest", "a", &[0]), 5), 4), Some(3), "the newest of the longest line");
    assert_eq!(gate.waiting(), 4);
}

#[test]
fn a_turn_is_expected_behind_those_who_wait_for_the_same_budget() {
    let mut gate = Gate::new(&[limit(Scope::Connection, 1)], 0, None);
    let (app, elsewhere) = (claim("app", "a", &[0]), claim("app", "b", &[0]));
    for claim in [&app, &elsewhere] {
        gate.take(claim, at(0));
    }
    for id in 0..10 {
        gate.wait(waiting(id, app.clone(), id), 100);
    }
    let expected = [app, elsewhere].map(|claim| {
        let later = gate.look(&claim, at(0)).expect("it has to wait");
        gate.expected(&claim, later)
    });
    assert_eq!(expected, [at(1_100), at(100)]);
}

#[test]
fn who_waits_for_what_cannot_come_any_more_is_let_go() {
    let mut gate = Gate::new(&[limit(Scope::Connection, 1)], 0, None);
    let app = claim("app", "a", &[0]);
    gate.take(&app, at(0));
    for (id, until) in [(0, at(5_000)), (1, at(30_000))] {
        gate.wait(Waiting { until, ..waiting(id, app.clone(), id) }, 100);
    }
    let report = Report { refused: true, retry_after: Some(Duration::from_secs(9)), ..Report::default() };
    gate.learn(&app, Some(report), at(0));
    gate.give_up(at(0));
    assert!(gate.waiting() == 1 && gate.leave(1));
}

#[test]
fn a_429_pauses_the_count_it_is_about_and_no_other() {
    let mut search = limit(Scope::Connection, 9);
    search.paths = vec![crate::definition::plan::path::PathGlob::new("/search*")];
    let mut gate = Gate::<usize>::new(&[limit(Scope::Connection, 9), search], 0, None);
    let special = Claim { count: 2, ..claim("app", "a", &[0, 1]) };
    gate.take(&special, at(0));
    let report = Report { refused: true, retry_after: Some(Duration::from_secs(9)), ..Report::default() };
    gate.learn(&special, Some(report), at(0));
    assert_eq!(gate.look(&special, at(1)).map(|later| later.at), Some(at(9_000)));
    assert_eq!(gate.look(&claim("app", "a", &[0]), at(1)), None, "other paths go on");
    assert_eq!(gate.look(&Claim { count: 2, ..claim("app", "b", &[0, 1]) }, at(1)), None, "other accounts too");
}

#[test]
fn a_reload_keeps_what_is_still_the_same() {
    let same = limit(Scope::Integration, 1);
    let mut gate = Gate::<usize>::new(&[same.clone(), limit(Scope::Connection, 1)], 0, None);
    let a = claim("app", "a", &[0, 1]);
    assert!(goes(&mut gate, &a, at(0)));
    let mut next = Gate::new(&[limit(Scope::Connection, 2), same], 0, Some(&gate));
    assert!(next.look(&claim("app", "a", &[0]), at(0)).is_none(), "a changed limit begins anew");
    assert!(next.look(&claim("app", "b", &[1]), at(0)).is_some(), "an unchanged one goes on, wherever it stands");
}

#[test]
fn memory_is_bounded() {
    let mut gate = Gate::<usize>::new(&[limit(Scope::Connection, 1)], 0, None);
    for number in 0..BUDGETS + 100 {
        let claim = claim("app", &number.to_string(), &[0]);
        gate.take(&claim, at(0));
        gate.learn(
            &claim,
            Some(Report { left: Some(1), resets_in: Some(Duration::from_secs(9)), ..Report::default() }),
            at(0),
        );
    }
    assert!(gate.limits[0].budgets.len() <= BUDGETS + 1, "{}", gate.limits[0].budgets.len());
    assert_eq!(gate.counts.len(), COUNTS);
    gate.take(&claim("app", "late", &[0]), at(100_000));
    assert_eq!((gate.limits[0].budgets.len(), gate.counts.len()), (1, 1));
}
