//! CronJobs: a Job at each time of a schedule.

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};

use super::conditions;
use super::cron::Schedule;
use super::kinds::{CRON_JOBS, JOBS};
use super::object::{KObject, at};
use super::work::{Work, controller_ref, later, stamp};

const COMPONENT: &str = "cronjob-controller";
/// Annotation of a Job with the time for which it was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More times than these missed in a row are told, and only the last is made up for.
const MISSED: usize = 100;

fn is_over(job: &KObject) -> Option<bool> {
    let value = job.value();
    let list = &value["status"]["conditions"];
    if conditions::is(list, "Complete", "True") {
        return Some(true);
    }
    conditions::is(list, "Failed", "True").then_some(false)
}

/// Decides about a CronJob.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(CRON_JOBS, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = object.get::<CronJob>().map(|s| s.spec.clone()) else {
        return;
    };
    let mine: Vec<Arc<KObject>> =
        w.k.list(JOBS, namespace)
            .filter(|j| j.meta.controller().is_some_and(|c| *c.uid == *object.meta.uid))
            .cloned()
            .collect();
    let mut status = object.value()["status"].clone();
    let active = follow(w, &object, &mine, &mut status);
    trim(w, &object, &mine, &spec);
    let mut active = active;
    if !object.meta.is_deleted() {
        start(w, &object, &spec, &mut active, &mut status);
    }
    if active.is_empty() {
        if let Some(map) = status.as_object_mut() {
            map.remove("active");
        }
    } else {
        at(&mut status, &[])["active"] = active.into();
    }
    if !status.is_null() {
        w.set_status(&object, status);
    }
}

fn reference(name: &str, namespace: &str, uid: &str) -> Value {
    json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": namespace, "uid": uid })
}

/// The Jobs that run; those that ended since are told.
fn follow(w: &mut Work<'_>, object: &KObject, mine: &[Arc<KObject>], status: &mut Value) -> Vec<Value> {
    let known: Vec<String> = status["active"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["uid"].as_str().map(str::to_owned))
        .collect();
    let mut active = Vec::new();
    for job in mine {
        let was = known.iter().any(|uid| **uid == *job.meta.uid);
        match is_over(job) {
            None => active.push(reference(job.name(), job.namespace(), &job.meta.uid)),
            Some(well) if was => {
                let outcome = if well { "Complete" } else { "Failed" };
                let text = format!("Saw completed job: {}, condition: {outcome}", job.name());
                w.note(object, COMPONENT, "SawCompletedJob", text);
                if well {
                    let end = job.value()["status"]["completionTime"].clone();
                    let before = status["lastSuccessfulTime"].as_str().unwrap_or_default();
                    if end.as_str().is_some_and(|e| e > before) {
                        at(status, &[])["lastSuccessfulTime"] = end;
                    }
                }
            }
            Some(_) => {}
        }
    }
    active
}

/// Removes the oldest Jobs that ended, beyond those that are kept.
fn trim(w: &mut Work<'_>, object: &KObject, mine: &[Arc<KObject>], spec: &CronJobSpec) {
    for (well, limit) in [
        (true, spec.successful_jobs_history_limit.unwrap_or(3)),
        (false, spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let mut ended: Vec<&Arc<KObject>> = mine
            .iter()
            .filter(|j| is_over(j) == Some(well) && !j.meta.is_deleted())
            .collect();
        ended.sort_by_key(|j| {
            (
                j.value()["status"]["startTime"].as_str().map(str::to_owned),
                j.name().to_owned(),
            )
        });
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for job in ended.into_iter().take(surplus) {
            w.note(
                object,
                COMPONENT,
                "SuccessfulDelete",
                format!("Deleted job {}", job.name()),
            );
            w.delete(job);
        }
    }
}

/// Makes the Job that is due, and has the next time looked at.
fn start(
    w: &mut Work<'_>,
    object: &KObject,
    spec: &CronJobSpec,
    active: &mut Vec<Value>,
    status: &mut Value,
) {
    let zone = match spec.time_zone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => match TimeZone::get(name) {
            Ok(zone) => zone,
            Err(_) => {
                let text = format!("invalid timeZone: \"{name}\": unknown time zone {name}");
                w.warn(object, COMPONENT, "UnknownTimeZone", text);
                return;
            }
        },
    };
    let schedule: Schedule = match spec.schedule.parse() {
        Ok(schedule) => schedule,
        Err(error) => {
            w.warn(
                object,
                COMPONENT,
                "UnparseableSchedule",
                format!("unparseable schedule: {:?} : {error}", spec.schedule),
            );
            return;
        }
    };
    if spec.suspend == Some(true) {
        return;
    }
    let now = w.now;
    let time = |v: &Value| v.as_str().and_then(|t| t.parse::<Time>().ok());
    let last = time(&status["lastScheduleTime"])
        .or(object.meta.creation_timestamp)
        .unwrap_or(now);
    let since = match spec.starting_deadline_seconds {
        Some(seconds) => last.max(later(now, -seconds)),
        None => last,
    };
    let (due, missed) = latest(&schedule, since, now, &zone);
    if missed > MISSED {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        w.warn(object, COMPONENT, "TooManyMissedTimes", text);
    }
    if let Some(next) = schedule.next(now, &zone) {
        w.wake(next);
    }
    let Some(due) = due else { return };
    make(w, object, spec, due, active, status);
}

/// The last time of a schedule up to now, and how many there were.
fn latest(schedule: &Schedule, since: Time, now: Time, zone: &TimeZone) -> (Option<Time>, usize) {
    let (mut at, mut due, mut n) = (since, None, 0);
    while let Some(next) = schedule.next(at, zone).filter(|t| *t <= now) {
        (at, due, n) = (next, Some(next), n + 1);
        if n > MISSED {
            // Only the last matters: go on from shortly before now.
            let hour = later(now, -3600);
            at = at.max(hour);
            if n > MISSED + 4000 {
                break;
            }
        }
    }
    (due, n)
}

fn make(
    w: &mut Work<'_>,
    object: &KObject,
    spec: &CronJobSpec,
    due: Time,
    active: &mut Vec<Value>,
    status: &mut Value,
) {
    let policy = spec.concurrency_policy.as_deref().unwrap_or("Allow");
    if policy == "Forbid" && !active.is_empty() {
        let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
        w.note(object, COMPONENT, "JobAlreadyActive", text);
        return;
    }
    if policy == "Replace" {
        for running in std::mem::take(active) {
            let name = running["name"].as_str().unwrap_or_default().to_owned();
            if let Some(job) = w.k.get(JOBS, object.namespace(), &name).cloned() {
                w.note(
                    object,
                    COMPONENT,
                    "SuccessfulDelete",
                    format!("Deleted job {name}"),
                );
                w.delete(&job);
            }
        }
    }
    let name = format!("{}-{}", object.name(), due.as_second() / 60);
    let template = object.value()["spec"]["jobTemplate"].take();
    let mut metadata = json!({
        "name": name, "namespace": object.namespace(), "ownerReferences": [controller_ref(object)],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    at(&mut metadata, &["annotations"])[SCHEDULED] = stamp(due);
    let uid = w.rng.uid();
    metadata["uid"] = uid.as_str().into();
    let mut job = json!({ "metadata": metadata, "spec": template["spec"] });
    complete(&mut job["spec"], &name, &uid);
    job["status"] = json!({});
    if w.create(JOBS, job).is_none() {
        return;
    }
    w.note(
        object,
        COMPONENT,
        "SuccessfulCreate",
        format!("Created job {name}"),
    );
    active.push(reference(&name, object.namespace(), &uid));
    at(status, &[])["lastScheduleTime"] = stamp(due);
}

/// Fills in what admission fills in: defaults, and the selector by the Job's own identity.
fn complete(spec: &mut Value, name: &str, uid: &str) {
    for (field, value) in [
        ("parallelism", json!(1)),
        ("completions", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        if spec.get(field).is_none() {
            spec[field] = value;
        }
    }
    if spec.get("selector").is_some_and(Value::is_object) {
        return;
    }
    spec["selector"] = json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } });
    let labels = at(spec, &["template", "metadata", "labels"]);
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ] {
        labels[key] = value.into();
    }
}
