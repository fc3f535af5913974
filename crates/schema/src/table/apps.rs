//! Workloads: deployments and their kin, jobs, autoscalers, disruption budgets.

use serde_json::Value;
use tripod_model::Time;

use super::format::{age, count, duration, joined, name, none, plain, selector, since};
use super::{AGE, Column, NAME, Printer, col, num, wide};
use crate::value::{at, int, is_true, list, text};

const CONTAINERS: Column = wide("Containers");
const IMAGES: Column = wide("Images");
const SELECTOR: Column = wide("Selector");

pub(super) fn printer(resource: &str) -> Option<Printer> {
    Some(match resource {
        "deployments.apps" => (
            const {
                &[
                    NAME,
                    col("Ready"),
                    num("Up-to-date"),
                    num("Available"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            },
            deployment,
        ),
        "replicasets.apps" | "replicationcontrollers" => (
            const {
                &[
                    NAME,
                    num("Desired"),
                    num("Current"),
                    num("Ready"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            },
            replicas,
        ),
        "statefulsets.apps" => (const { &[NAME, col("Ready"), AGE, CONTAINERS, IMAGES] }, stateful),
        "daemonsets.apps" => (
            const {
                &[
                    NAME,
                    num("Desired"),
                    num("Current"),
                    num("Ready"),
                    num("Up-to-date"),
                    num("Available"),
                    col("Node Selector"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            },
            daemons,
        ),
        "controllerrevisions.apps" => (
            const { &[NAME, col("Controller"), col("Revision"), AGE] },
            revision,
        ),
        "jobs.batch" => (
            const {
                &[
                    NAME,
                    col("Status"),
                    col("Completions"),
                    col("Duration"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            },
            job,
        ),
        "cronjobs.batch" => (
            const {
                &[
                    NAME,
                    col("Schedule"),
                    col("Timezone"),
                    col("Suspend"),
                    num("Active"),
                    col("Last Schedule"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            },
            cron,
        ),
        "podtemplates" => (
            const { &[NAME, col("Containers"), col("Images"), col("Pod Labels")] },
            pod_template,
        ),
        "horizontalpodautoscalers.autoscaling" => (
            const {
                &[
                    NAME,
                    col("Reference"),
                    col("Targets"),
                    col("MinPods"),
                    col("MaxPods"),
                    num("Replicas"),
                    AGE,
                ]
            },
            autoscaler,
        ),
        "poddisruptionbudgets.policy" => (
            const {
                &[
                    NAME,
                    col("Min Available"),
                    col("Max Unavailable"),
                    num("Allowed Disruptions"),
                    AGE,
                ]
            },
            budget,
        ),
        _ => return None,
    })
}

fn template(object: &Value, path: &[&str]) -> [Value; 2] {
    let path: Vec<&str> = path.iter().copied().chain(["spec", "containers"]).collect();
    [joined(object, &path, "name"), joined(object, &path, "image")]
}

fn deployment(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = template(o, &["spec", "template"]);
    let wanted = int(o, &["spec", "replicas"]).unwrap_or(0);
    let ready = int(o, &["status", "readyReplicas"]).unwrap_or(0);
    vec![
        name(o),
        format!("{ready}/{wanted}").into(),
        count(o, &["status", "updatedReplicas"]),
        count(o, &["status", "availableReplicas"]),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn replicas(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = template(o, &["spec", "template"]);
    let plain_selector = at(o, &["spec", "selector"])
        .is_some_and(|s| s.get("matchLabels").is_none() && s.get("matchExpressions").is_none());
    vec![
        name(o),
        count(o, &["spec", "replicas"]),
        count(o, &["status", "replicas"]),
        count(o, &["status", "readyReplicas"]),
        age(o, now),
        names,
        images,
        if plain_selector {
            super::format::pairs(o, &["spec", "selector"])
        } else {
            selector(o)
        },
    ]
}

fn stateful(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = template(o, &["spec", "template"]);
    let wanted = int(o, &["spec", "replicas"]).unwrap_or(0);
    let ready = int(o, &["status", "readyReplicas"]).unwrap_or(0);
    vec![
        name(o),
        format!("{ready}/{wanted}").into(),
        age(o, now),
        names,
        images,
    ]
}

fn daemons(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = template(o, &["spec", "template"]);
    vec![
        name(o),
        count(o, &["status", "desiredNumberScheduled"]),
        count(o, &["status", "currentNumberScheduled"]),
        count(o, &["status", "numberReady"]),
        count(o, &["status", "updatedNumberScheduled"]),
        count(o, &["status", "numberAvailable"]),
        super::format::pairs(o, &["spec", "template", "spec", "nodeSelector"]),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn revision(o: &Value, now: Time) -> Vec<Value> {
    let owners = list(o, &["metadata", "ownerReferences"]);
    let owner = owners.iter().find(|r| is_true(r, &["controller"]));
    let owner = owner.map(|r| {
        let (group, _) = text(r, &["apiVersion"]).split_once('/').unwrap_or_default();
        let dot = if group.is_empty() { "" } else { "." };
        format!(
            "{}{dot}{group}/{}",
            text(r, &["kind"]).to_lowercase(),
            text(r, &["name"])
        )
    });
    vec![
        name(o),
        none(&owner.unwrap_or_default()),
        count(o, &["revision"]),
        age(o, now),
    ]
}

fn job(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = template(o, &["spec", "template"]);
    let done = int(o, &["status", "succeeded"]).unwrap_or(0);
    let completions = match (int(o, &["spec", "completions"]), int(o, &["spec", "parallelism"])) {
        (Some(all), _) => format!("{done}/{all}"),
        (None, Some(n)) if n > 1 => format!("{done}/1 of {n}"),
        _ => format!("{done}/1"),
    };
    let started = text(o, &["status", "startTime"]).parse::<Time>();
    let ended = text(o, &["status", "completionTime"]).parse::<Time>();
    let took = match (started, ended) {
        (Ok(from), Ok(to)) => duration(to.duration_since(from).as_secs()),
        (Ok(from), Err(_)) => duration(now.duration_since(from).as_secs()),
        _ => String::new(),
    };
    let has = |ty: &str| {
        list(o, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == ty && text(c, &["status"]) == "True")
    };
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !text(o, &["metadata", "deletionTimestamp"]).is_empty() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    vec![
        name(o),
        status.into(),
        completions.into(),
        took.into(),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn cron(o: &Value, now: Time) -> Vec<Value> {
    let [names, images] = template(o, &["spec", "jobTemplate", "spec", "template"]);
    let last = text(o, &["status", "lastScheduleTime"]);
    let last = if last.is_empty() {
        "<none>".into()
    } else {
        since(last, now)
    };
    let jobs = at(o, &["spec", "jobTemplate", "spec", "selector"]).map(crate::selector::selector_text);
    vec![
        name(o),
        text(o, &["spec", "schedule"]).into(),
        none(text(o, &["spec", "timeZone"])),
        if is_true(o, &["spec", "suspend"]) {
            "True"
        } else {
            "False"
        }
        .into(),
        list(o, &["status", "active"]).len().into(),
        last.into(),
        age(o, now),
        names,
        images,
        none(&jobs.unwrap_or_default()),
    ]
}

fn pod_template(o: &Value, _: Time) -> Vec<Value> {
    let [names, images] = template(o, &["template"]);
    vec![
        name(o),
        names,
        images,
        super::format::pairs(o, &["template", "metadata", "labels"]),
    ]
}

fn autoscaler(o: &Value, now: Time) -> Vec<Value> {
    let reference = format!(
        "{}/{}",
        text(o, &["spec", "scaleTargetRef", "kind"]),
        text(o, &["spec", "scaleTargetRef", "name"])
    );
    let current = list(o, &["status", "currentMetrics"]);
    let metrics: Vec<String> = list(o, &["spec", "metrics"])
        .iter()
        .enumerate()
        .map(|(i, metric)| {
            let wanted = &metric["resource"]["target"];
            let now = current.get(i).map(|c| &c["resource"]["current"]);
            let name = text(metric, &["resource", "name"]);
            match int(wanted, &["averageUtilization"]) {
                Some(percent) => {
                    let now = now.and_then(|n| int(n, &["averageUtilization"]));
                    let now = now.map_or("<unknown>".into(), |n| format!("{n}%"));
                    format!("{name}: {now}/{percent}%")
                }
                None => {
                    let now = now.map(|n| text(n, &["averageValue"])).filter(|t| !t.is_empty());
                    format!(
                        "{}/{}",
                        now.unwrap_or("<unknown>"),
                        text(wanted, &["averageValue"])
                    )
                }
            }
        })
        .collect();
    vec![
        name(o),
        reference.into(),
        none(&metrics.join(", ")),
        int(o, &["spec", "minReplicas"])
            .map_or("<unset>".into(), |n| n.to_string())
            .into(),
        count(o, &["spec", "maxReplicas"]),
        count(o, &["status", "currentReplicas"]),
        age(o, now),
    ]
}

fn budget(o: &Value, now: Time) -> Vec<Value> {
    let or_none = |path: &[&str]| super::format::or(&plain(at(o, path)), "N/A");
    vec![
        name(o),
        or_none(&["spec", "minAvailable"]),
        or_none(&["spec", "maxUnavailable"]),
        count(o, &["status", "disruptionsAllowed"]),
        age(o, now),
    ]
}
