//! What makes pods, and what watches over them.

use serde_json::{Value, json};

use super::meta::{labels, selector};
use super::{Causes, natural, one_of, pod};
use crate::failure::Cause;
use crate::selector::LabelSelector;
use crate::value::{at, int, is_true, list, text};

pub(super) fn check(resource: &str, object: &Value, causes: &mut Causes) {
    match resource {
        "podtemplates" => template(
            &object["template"],
            "template",
            &["Always", "OnFailure", "Never"],
            causes,
        ),
        "jobs.batch" => job(&object["spec"], "spec", true, causes),
        "cronjobs.batch" => cron(object, causes),
        "poddisruptionbudgets.policy" => budget(object, causes),
        "horizontalpodautoscalers.autoscaling" => autoscaler(object, causes),
        _ => controller(resource, object, causes),
    }
}

fn controller(resource: &str, object: &Value, causes: &mut Causes) {
    natural(object, &["spec", "replicas"], causes);
    natural(object, &["spec", "minReadySeconds"], causes);
    natural(object, &["spec", "revisionHistoryLimit"], causes);
    let spec = &object["spec"];
    if resource == "replicationcontrollers" {
        if spec["selector"].as_object().is_none_or(serde_json::Map::is_empty) {
            causes.push(Cause::required("spec.selector", ""));
        }
        if spec.get("template").is_none() {
            causes.push(Cause::required("spec.template", ""));
        }
        let own = json!({"matchLabels": spec["selector"]});
        matches(&own, spec, causes);
    } else {
        let empty = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
        if empty {
            causes.push(Cause::invalid(
                "spec.selector",
                &spec["selector"],
                "empty selector is invalid for deployment",
            ));
        }
        selector(&spec["selector"], "spec.selector", causes);
        matches(&spec["selector"], spec, causes);
    }
    if spec.get("template").is_some() {
        template(&spec["template"], "spec.template", &["Always"], causes);
    }
    match resource {
        "deployments.apps" => {
            one_of(
                object,
                &["spec", "strategy", "type"],
                "spec.strategy.type",
                &["Recreate", "RollingUpdate"],
                causes,
            );
            if text(spec, &["strategy", "type"]) == "Recreate"
                && at(spec, &["strategy", "rollingUpdate"]).is_some()
            {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                causes.push(Cause::forbidden("spec.strategy.rollingUpdate", why));
            }
            if let (Some(deadline), Some(ready)) = (
                int(spec, &["progressDeadlineSeconds"]),
                int(spec, &["minReadySeconds"]).or(Some(0)),
            ) && deadline <= ready
            {
                causes.push(Cause::invalid(
                    "spec.progressDeadlineSeconds",
                    &deadline.into(),
                    "must be greater than minReadySeconds",
                ));
            }
            rolling(
                at(spec, &["strategy", "rollingUpdate"]),
                "spec.strategy.rollingUpdate",
                causes,
            );
        }
        "statefulsets.apps" => {
            let known = ["OrderedReady", "Parallel"];
            one_of(
                object,
                &["spec", "podManagementPolicy"],
                "spec.podManagementPolicy",
                &known,
                causes,
            );
            let known = ["OnDelete", "RollingUpdate"];
            one_of(
                object,
                &["spec", "updateStrategy", "type"],
                "spec.updateStrategy.type",
                &known,
                causes,
            );
        }
        "daemonsets.apps" => {
            let known = ["OnDelete", "RollingUpdate"];
            one_of(
                object,
                &["spec", "updateStrategy", "type"],
                "spec.updateStrategy.type",
                &known,
                causes,
            );
        }
        _ => {}
    }
}

/// Amounts that are numbers or percentages.
fn rolling(update: Option<&Value>, field: &str, causes: &mut Causes) {
    let Some(update) = update else { return };
    let mut zero = 0;
    for member in ["maxUnavailable", "maxSurge"] {
        let path = format!("{field}.{member}");
        match &update[member] {
            Value::Number(n) if n.as_i64().unwrap_or(0) < 0 => {
                causes.push(Cause::invalid(
                    path,
                    &update[member],
                    "must be greater than or equal to 0",
                ));
            }
            Value::Number(n) => zero += i32::from(n.as_i64() == Some(0)),
            Value::String(text) => match text.strip_suffix('%').and_then(|n| n.parse::<u32>().ok()) {
                Some(percent) => zero += i32::from(percent == 0),
                None => {
                    let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    causes.push(Cause::invalid_text(path, text, why));
                }
            },
            _ => {}
        }
    }
    if zero == 2 {
        let why = "may not be 0 when `maxSurge` is 0";
        causes.push(Cause::invalid(
            format!("{field}.maxUnavailable"),
            &update["maxUnavailable"],
            why,
        ));
    }
}

/// The template must be found by the selector.
fn matches(selector: &Value, spec: &Value, causes: &mut Causes) {
    if spec.get("template").is_some() && !LabelSelector::of(selector).accepts(&spec["template"]) {
        let labels = at(spec, &["template", "metadata", "labels"])
            .cloned()
            .unwrap_or(json!({}));
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &labels,
            "`selector` does not match template `labels`",
        ));
    }
}

fn template(template: &Value, field: &str, restarts: &[&str], causes: &mut Causes) {
    labels(
        at(template, &["metadata", "labels"]),
        &format!("{field}.metadata.labels"),
        causes,
    );
    pod::check(&template["spec"], &format!("{field}.spec"), causes);
    one_of(
        template,
        &["spec", "restartPolicy"],
        &format!("{field}.spec.restartPolicy"),
        restarts,
        causes,
    );
    if !list(template, &["spec", "ephemeralContainers"]).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        causes.push(Cause::forbidden(format!("{field}.spec.ephemeralContainers"), why));
    }
}

fn job(spec: &Value, field: &str, own: bool, causes: &mut Causes) {
    for member in [
        "parallelism",
        "completions",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "activeDeadlineSeconds",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        if let Some(number) = int(spec, &[member]).filter(|n| *n < 0) {
            causes.push(Cause::invalid(
                format!("{field}.{member}"),
                &number.into(),
                "must be greater than or equal to 0",
            ));
        }
    }
    one_of(
        spec,
        &["completionMode"],
        &format!("{field}.completionMode"),
        &["Indexed", "NonIndexed"],
        causes,
    );
    if text(spec, &["completionMode"]) == "Indexed" && int(spec, &["completions"]).is_none() {
        causes.push(Cause::required(
            format!("{field}.completions"),
            "when completion mode is Indexed",
        ));
    }
    if own {
        if spec.get("selector").is_none() {
            causes.push(Cause::required(format!("{field}.selector"), ""));
        } else {
            matches(&spec["selector"], spec, causes);
        }
    } else if spec.get("selector").is_some() && !is_true(spec, &["manualSelector"]) {
        causes.push(Cause::invalid(
            format!("{field}.selector"),
            &spec["selector"],
            "`selector` will be auto-generated",
        ));
    }
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    pod::check(
        &spec["template"]["spec"],
        &format!("{field}.template.spec"),
        causes,
    );
    if policy == "Always" {
        let why_known = ["OnFailure", "Never"];
        causes.push(Cause::unsupported(
            format!("{field}.template.spec.restartPolicy"),
            policy,
            &why_known,
        ));
    }
    if spec.get("podFailurePolicy").is_some() && policy != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        causes.push(Cause::invalid_text(
            format!("{field}.template.spec.restartPolicy"),
            policy,
            why,
        ));
    }
}

fn cron(object: &Value, causes: &mut Causes) {
    let schedule = text(object, &["spec", "schedule"]);
    if let Some(why) = bad_schedule(schedule) {
        causes.push(Cause::invalid_text("spec.schedule", schedule, why));
    }
    let known = ["Allow", "Forbid", "Replace"];
    one_of(
        object,
        &["spec", "concurrencyPolicy"],
        "spec.concurrencyPolicy",
        &known,
        causes,
    );
    for member in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        natural(object, &["spec", member], causes);
    }
    if text(object, &["metadata", "name"]).len() > 52 {
        let name = text(object, &["metadata", "name"]);
        causes.push(Cause::invalid_text(
            "metadata.name",
            name,
            "must be no more than 52 characters",
        ));
    }
    if let Some(spec) = at(object, &["spec", "jobTemplate", "spec"]) {
        job(spec, "spec.jobTemplate.spec", false, causes);
    }
}

/// Why a text is no schedule of cron.
fn bad_schedule(schedule: &str) -> Option<String> {
    if schedule.starts_with('@') {
        const WORDS: [&str; 7] = [
            "@yearly",
            "@annually",
            "@monthly",
            "@weekly",
            "@daily",
            "@midnight",
            "@hourly",
        ];
        let every = schedule
            .strip_prefix("@every ")
            .is_some_and(|d| d.ends_with(['s', 'm', 'h']));
        return (!WORDS.contains(&schedule) && !every)
            .then(|| format!("unrecognized descriptor: {schedule}"));
    }
    if schedule.contains("TZ") {
        return Some("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".into());
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    let fine = |field: &str, (least, most): (u32, u32)| {
        field.split(',').all(|part| {
            let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
            if step.is_some_and(|s| s.parse::<u32>().ok().is_none_or(|n| n == 0)) {
                return false;
            }
            if range == "*" || range == "?" {
                return true;
            }
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let number = |word: &str| {
                let name = [
                    "sun", "mon", "tue", "wed", "thu", "fri", "sat", "jan", "feb", "mar", "apr", "may",
                    "jun", "jul", "aug", "sep", "oct", "nov", "dec",
                ];
                let named = name.iter().position(|n| *n == word.to_lowercase());
                match (word.parse::<u32>(), named) {
                    (Ok(n), _) => Some(n),
                    (_, Some(i)) if i < 7 && most == 7 => Some(i as u32),
                    (_, Some(i)) if i >= 7 && most == 12 => Some(i as u32 - 6),
                    _ => None,
                }
            };
            matches!((number(from), number(to)), (Some(a), Some(b)) if a <= b && a >= least && b <= most)
        })
    };
    let bad = fields
        .iter()
        .zip(ranges)
        .find(|(field, range)| !fine(field, *range));
    bad.map(|(field, _)| format!("failed to parse int from {field}: invalid syntax or out of range"))
}

fn budget(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        causes.push(Cause::invalid("spec", spec, why));
    }
    selector(&spec["selector"], "spec.selector", causes);
    for member in ["minAvailable", "maxUnavailable"] {
        if spec[member].as_i64().is_some_and(|n| n < 0) {
            causes.push(Cause::invalid(
                format!("spec.{member}"),
                &spec[member],
                "must be greater than or equal to 0",
            ));
        }
    }
}

fn autoscaler(object: &Value, causes: &mut Causes) {
    let spec = &object["spec"];
    let most = int(spec, &["maxReplicas"]).unwrap_or(0);
    if most < 1 {
        causes.push(Cause::invalid(
            "spec.maxReplicas",
            &most.into(),
            "must be greater than 0",
        ));
    }
    let least = int(spec, &["minReplicas"]).unwrap_or(1);
    if least < 1 {
        causes.push(Cause::invalid(
            "spec.minReplicas",
            &least.into(),
            "must be greater than or equal to 1",
        ));
    } else if most >= 1 && most < least {
        causes.push(Cause::invalid(
            "spec.maxReplicas",
            &most.into(),
            "must be greater than or equal to `minReplicas`",
        ));
    }
}
