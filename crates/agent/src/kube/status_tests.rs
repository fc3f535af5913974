//! Tests of the status of pods.

use serde_json::{Value, json};

use super::super::desc::tests::pod;
use super::*;

fn ended(code: i64) -> Run {
    Run::Ended(Ended {
        id: "c".into(),
        code,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        started: Some(Time::UNIX_EPOCH),
        finished: Some(Time::UNIX_EPOCH),
    })
}

const RUNS: Run = Run::Running { at: Time::UNIX_EPOCH };

fn make(spec: Value, runs: &[(&str, Run)], over: bool, change: impl Fn(&mut Known)) -> PodStatus {
    let desc = pod(spec, json!({}));
    let known = runs
        .iter()
        .map(|(name, run)| {
            let mut k = Known {
                run: run.clone(),
                started: true,
                ready: true,
                ..Known::default()
            };
            change(&mut k);
            ((*name).to_owned(), k)
        })
        .collect();
    status(&Facts {
        desc: &desc,
        known: &known,
        addresses: &Addresses::default(),
        placed: true,
        ending: false,
        over,
        verdict: None,
        pending: None,
        started: None,
        before: None,
        now: Time::UNIX_EPOCH,
    })
}

fn condition(s: &PodStatus, kind: &str) -> (String, Option<String>) {
    let found = s.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn phases() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
    for (policy, a, b, over, want) in [
        ("Always", Run::None, Run::None, false, "Pending"),
        ("Always", RUNS, Run::None, false, "Pending"),
        ("Always", RUNS, RUNS, false, "Running"),
        ("Always", RUNS, ended(1), false, "Running"),
        ("Always", ended(0), ended(1), false, "Running"),
        ("Never", ended(0), RUNS, false, "Running"),
        ("Never", ended(0), ended(0), false, "Succeeded"),
        ("Never", ended(0), ended(1), false, "Failed"),
        ("OnFailure", ended(0), ended(1), false, "Running"),
        ("OnFailure", ended(0), ended(0), false, "Succeeded"),
        ("Always", ended(0), ended(0), true, "Succeeded"),
        ("Always", ended(0), ended(137), true, "Failed"),
        ("Always", Run::None, Run::None, true, "Failed"),
    ] {
        let s = make(spec(policy), &[("a", a.clone()), ("b", b.clone())], over, |_| {});
        assert_eq!(s.phase.as_deref(), Some(want), "{policy} {a:?} {b:?} {over}");
    }
}

#[test]
fn a_failed_init_container_fails_the_pod() {
    let spec =
        json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let s = make(spec, &[("i", ended(1))], true, |_| {});
    assert_eq!(s.phase.as_deref(), Some("Failed"));
    assert_eq!(condition(&s, "Initialized").0, "False");
    let waiting = s.container_statuses.unwrap()[0]
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
}

#[test]
fn readiness_needs_every_container() {
    let spec = json!({"containers": [{"name": "a"}]});
    let s = make(spec.clone(), &[("a", RUNS)], false, |_| {});
    assert_eq!(condition(&s, "Ready"), ("True".into(), None));
    let s = make(spec, &[("a", RUNS)], false, |k| k.ready = false);
    assert_eq!(
        condition(&s, "Ready"),
        ("False".into(), Some("ContainersNotReady".into()))
    );
    assert!(!s.container_statuses.unwrap()[0].ready);
    let gated = json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]});
    let s = make(gated, &[("a", RUNS)], false, |_| {});
    assert_eq!(
        condition(&s, "Ready").1.as_deref(),
        Some("ReadinessGatesNotReady")
    );
    assert_eq!(condition(&s, "ContainersReady").0, "True");
}

#[test]
fn a_crashing_container_waits_and_keeps_its_last_state() {
    let spec = json!({"containers": [{"name": "a"}]});
    let s = make(spec, &[("a", ended(3))], false, |k| {
        k.waiting = Some(("CrashLoopBackOff".into(), "back-off 10s".into()));
        k.restarts = 2;
    });
    let c = &s.container_statuses.unwrap()[0];
    let waiting = c.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = c.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, c.restart_count), (3, 2));
}
