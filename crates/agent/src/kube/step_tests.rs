//! Tests of what is done next for a pod.

use serde_json::{Value, json};

use super::super::desc::tests::pod;
use super::*;

const RUNS: Life = Life::Running { started: true };
const STARTING: Life = Life::Running { started: false };

fn ended(code: i64) -> Life {
    Life::Ended { code, ran: 1 }
}

/// Decides for a pod whose place is ready.
fn plan(spec: Value, ext: Value, lives: &[(&str, Life)], ending: bool) -> Plan {
    let seen = lives
        .iter()
        .map(|(n, life)| {
            let seen = Seen {
                life: *life,
                ..Seen::default()
            };
            ((*n).to_owned(), seen)
        })
        .collect();
    decide(&View {
        desc: &pod(spec, ext),
        seen: &seen,
        place: Place::Ready,
        ending,
        now: Time::UNIX_EPOCH,
    })
}

fn words(plan: &Plan) -> Vec<String> {
    plan.actions
        .iter()
        .map(|a| match a {
            Action::Settle => "settle".into(),
            Action::Start(n) => format!("start {n}"),
            Action::Stop(n) => format!("stop {n}"),
            Action::Leave => "leave".into(),
        })
        .collect()
}

fn spec(policy: &str) -> Value {
    json!({
        "restartPolicy": policy,
        "initContainers": [
            {"name": "i1"},
            {"name": "side", "restartPolicy": "Always"},
            {"name": "i2"},
        ],
        "containers": [{"name": "a"}, {"name": "b"}],
    })
}

#[test]
fn containers_start_in_order() {
    for (lives, want) in [
        (vec![], vec!["start i1"]),
        (vec![("i1", RUNS)], vec![]),
        (vec![("i1", ended(1))], vec!["start i1"]),
        (vec![("i1", ended(0))], vec!["start side"]),
        (vec![("i1", ended(0)), ("side", STARTING)], vec![]),
        (vec![("i1", ended(0)), ("side", RUNS)], vec!["start i2"]),
        (
            vec![("i1", ended(0)), ("side", RUNS), ("i2", ended(0))],
            vec!["start a", "start b"],
        ),
        // Once begun, init containers are past, and a sidecar that ended does not hold the others up.
        (
            vec![("side", ended(1)), ("a", ended(0)), ("b", RUNS)],
            vec!["start side", "start a"],
        ),
    ] {
        let plan = plan(spec("Always"), json!({}), &lives, false);
        assert_eq!(words(&plan), want, "{lives:?}");
        assert!(!plan.over);
    }
}

#[test]
fn policies_say_who_runs_again() {
    let one = |policy: &str, own: Value| {
        let mut container = json!({"name": "a"});
        container
            .as_object_mut()
            .unwrap()
            .extend(own.as_object().unwrap().clone());
        json!({"restartPolicy": policy, "containers": [container]})
    };
    let rules = json!({"restartPolicy": "Never", "restartPolicyRules":
        [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
    for (policy, own, ext, code, again) in [
        ("Always", json!({}), json!({}), 0, true),
        ("OnFailure", json!({}), json!({}), 0, false),
        ("OnFailure", json!({}), json!({}), 1, true),
        ("Never", json!({}), json!({}), 1, false),
        ("Always", rules.clone(), json!({}), 1, false),
        ("Never", rules, json!({}), 42, true),
        (
            "Never",
            json!({}),
            json!({"a": {"restart": {"attemptPeriod": 0}}}),
            1,
            true,
        ),
        (
            "Never",
            json!({}),
            json!({"a": {"restart": {"attemptPeriod": 60}}}),
            1,
            false,
        ),
    ] {
        let plan = plan(one(policy, own.clone()), ext, &[("a", ended(code))], false);
        let want = if again { "start a" } else { "leave" };
        assert_eq!(words(&plan), [want], "{policy} {own} {code}");
    }
}

#[test]
fn sidecars_end_last_and_in_reverse() {
    let mut two = spec("Never");
    two["initContainers"] = json!([
        {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}]);
    for (lives, want) in [
        (
            vec![("s1", RUNS), ("s2", RUNS), ("a", RUNS), ("b", RUNS)],
            vec!["stop a", "stop b"],
        ),
        (
            vec![("s1", RUNS), ("s2", RUNS), ("a", ended(0)), ("b", RUNS)],
            vec!["stop b"],
        ),
        (
            vec![("s1", RUNS), ("s2", RUNS), ("a", ended(0)), ("b", ended(0))],
            vec!["stop s2"],
        ),
        (
            vec![("s1", RUNS), ("s2", ended(0)), ("a", ended(0)), ("b", ended(0))],
            vec!["stop s1"],
        ),
        (
            vec![
                ("s1", ended(0)),
                ("s2", ended(0)),
                ("a", ended(0)),
                ("b", ended(0)),
            ],
            vec!["leave"],
        ),
    ] {
        assert_eq!(
            words(&plan(two.clone(), json!({}), &lives, true)),
            want,
            "{lives:?}"
        );
    }
    // The work is done: sidecars end without anybody asking.
    let lives = [("s1", RUNS), ("s2", RUNS), ("a", ended(0)), ("b", ended(3))];
    assert_eq!(words(&plan(two, json!({}), &lives, false)), ["stop s2"]);
}

#[test]
fn a_failed_init_container_ends_the_pod_where_nothing_is_restarted() {
    let lives = [("i1", ended(1))];
    assert_eq!(words(&plan(spec("Never"), json!({}), &lives, false)), ["leave"]);
    assert_eq!(
        words(&plan(spec("OnFailure"), json!({}), &lives, false)),
        ["start i1"]
    );
}

#[test]
fn containers_wait_for_what_they_depend_on() {
    let ext = |condition: &str| json!({"b": {"dependsOn": [{"container": "a", "condition": condition}]}});
    let two = json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
    for (condition, life, starts) in [
        ("START", Life::None, false),
        ("START", RUNS, true),
        ("COMPLETE", RUNS, false),
        ("COMPLETE", ended(1), true),
        ("SUCCESS", ended(1), false),
        ("SUCCESS", ended(0), true),
        ("HEALTHY", RUNS, false),
    ] {
        let plan = plan(two.clone(), ext(condition), &[("a", life)], false);
        let got = words(&plan).contains(&"start b".to_owned());
        assert_eq!(got, starts, "{condition} {life:?}");
    }
}

#[test]
fn an_essential_container_takes_the_pod_with_it() {
    let two = json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
    let lives = [("a", ended(0)), ("b", RUNS)];
    let ext = json!({"a": {"essential": true}});
    assert_eq!(words(&plan(two.clone(), ext, &lives, false)), ["stop b"]);
    assert!(plan(two, json!({}), &lives, false).actions.is_empty());
}

#[test]
fn the_place_comes_first_and_goes_last() {
    let desc = pod(json!({"containers": [{"name": "a"}]}), json!({}));
    let at = Time::from_second(5).unwrap();
    let seen = BTreeMap::new();
    let decide_at = |place, ending| {
        let view = View {
            desc: &desc,
            seen: &seen,
            place,
            ending,
            now: Time::UNIX_EPOCH,
        };
        decide(&view)
    };
    assert_eq!(words(&decide_at(Place::None, false)), ["settle"]);
    assert_eq!(decide_at(Place::Waiting(at), false).wake, Some(at));
    assert_eq!(decide_at(Place::Busy, false), Plan::default());
    assert_eq!(words(&decide_at(Place::Ready, true)), ["leave"]);
    assert!(decide_at(Place::None, true).over);
}

#[test]
fn backing_off_is_waited_for() {
    let desc = pod(json!({"containers": [{"name": "a"}]}), json!({}));
    let at = Time::from_second(10).unwrap();
    let seen = BTreeMap::from([(
        "a".to_owned(),
        Seen {
            life: ended(1),
            not_before: Some(at),
            ..Seen::default()
        },
    )]);
    let mut view = View {
        desc: &desc,
        seen: &seen,
        place: Place::Ready,
        ending: false,
        now: Time::UNIX_EPOCH,
    };
    assert_eq!(
        decide(&view),
        Plan {
            wake: Some(at),
            ..Plan::default()
        }
    );
    view.now = at;
    assert_eq!(words(&decide(&view)), ["start a"]);
}
