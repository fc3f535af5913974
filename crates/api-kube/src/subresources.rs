//! What hangs below objects and is no stream: scale, binding, eviction, tokens.

use http::StatusCode;
use serde_json::{Value, json};
use tripod_schema::decode::{Findings, conform};
use tripod_schema::failure::Result;
use tripod_schema::value::{int, list, object_mut, text};
use tripod_schema::{Cause, Failure, patch as patches};
use tripod_store::{Key, KindId};

use crate::body;
use crate::call::Call;
use crate::encode::value_reply;
use crate::objects::{self, DeleteOptions};
use crate::reply::Reply;
use crate::target::Target;

/// A body of a type that is not the parent's.
pub(crate) async fn read(call: &Call, schema: &str, kind: &str) -> Result<Value> {
    let bytes = body::read(call).await?;
    let mut findings = Findings::default();
    let mut value = body::value(call, &bytes, &mut findings)?;
    let said = text(&value, &["kind"]);
    if !said.is_empty() && said != kind {
        return Err(Failure::bad_request(format_args!(
            "unexpected kind {said:?}: expected {kind:?}"
        )));
    }
    conform(&mut value, schema, kind, &mut findings).map_err(Failure::bad_request)?;
    Ok(value)
}

/// The parent of a subresource.
fn parent(target: &Target) -> Target {
    Target {
        sub: None,
        ..target.clone()
    }
}

/// `Scale` of an object.
fn scale_of(target: &Target, object: &Value) -> Value {
    let selector = match (target.kind.plural, object.pointer("/spec/selector")) {
        ("replicationcontrollers", Some(Value::Object(labels))) => {
            let pairs = labels
                .iter()
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
            pairs.collect::<Vec<_>>().join(",")
        }
        (_, Some(selector)) => tripod_schema::selector::selector_text(selector),
        _ => String::new(),
    };
    let mut meta = json!({});
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(name) {
            meta[name] = value.clone();
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = int(object, &["spec", "replicas"]).filter(|n| *n != 0) {
        spec["replicas"] = replicas.into();
    }
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": meta,
        "spec": spec,
        "status": {"replicas": int(object, &["status", "replicas"]).unwrap_or(0), "selector": selector},
    })
}

/// What makes the new scale of the old one.
type Wanted = Box<dyn Fn(&Value) -> Result<Value> + Send + Sync>;

/// `scale`.
pub(crate) async fn scale(call: &Call, target: &Target, verb: &str) -> Reply {
    let parent = parent(target);
    if verb == "get" {
        let state = call.manager.state();
        let stored = state
            .get(&objects::key(&parent))
            .ok_or_else(|| Failure::not_found(target.kind, &target.name))?;
        let object: Value = serde_json::from_slice(&stored.bytes).map_err(Failure::internal)?;
        return value_reply(call, StatusCode::OK, &scale_of(target, &object));
    }
    let wanted: Wanted = if verb == "update" {
        let said = read(call, "autoscaling.v1.Scale", "Scale").await?;
        let name = text(&said, &["metadata", "name"]);
        if !name.is_empty() && name != target.name {
            return Err(Failure::bad_request(format_args!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        Box::new(move |_| Ok(said.clone()))
    } else {
        let (bytes, kind) = (body::read(call).await?, body::media_type(call).to_owned());
        Box::new(move |old| patched_scale(old, &kind, &bytes))
    };
    let shown = objects::change(call, &parent, |old| {
        let scale = wanted(&scale_of(target, old))?;
        let replicas = int(&scale, &["spec", "replicas"]).unwrap_or(0);
        if replicas < 0 {
            let why = "must be greater than or equal to 0";
            let causes = vec![Cause::invalid("spec.replicas", &replicas.into(), why)];
            return Err(Failure::invalid_named(
                "autoscaling",
                "Scale",
                &target.name,
                causes,
            ));
        }
        let mut new = old.clone();
        object_mut(&mut new, &["spec"]).insert("replicas".into(), replicas.into());
        let meta = object_mut(&mut new, &["metadata"]);
        match scale["metadata"]
            .get("resourceVersion")
            .filter(|v| *v != "" && verb == "update")
        {
            Some(version) => drop(meta.insert("resourceVersion".into(), version.clone())),
            None => drop(meta.remove("resourceVersion")),
        }
        Ok(new)
    })
    .await?;
    let object: Value = serde_json::from_slice(&shown).map_err(Failure::internal)?;
    value_reply(call, StatusCode::OK, &scale_of(target, &object))
}

fn patched_scale(old: &Value, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let mut scale = old.clone();
    if media_type == "application/json-patch+json" {
        patches::json(&mut scale, bytes)?;
    } else {
        let patch = body::yaml(bytes)?;
        patches::merge(&mut scale, &patch);
    }
    let mut findings = Findings::default();
    conform(&mut scale, "autoscaling.v1.Scale", "Scale", &mut findings).map_err(Failure::bad_request)?;
    Ok(scale)
}

fn created(call: &Call) -> Reply {
    let status =
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "code": 201});
    value_reply(call, StatusCode::CREATED, &status)
}

/// `binding` of a pod: it is given to a node.
pub(crate) async fn bind(call: &Call, target: &Target) -> Reply {
    let binding = read(call, "core.v1.Binding", "Binding").await?;
    let name = match target.name.as_str() {
        "" => text(&binding, &["metadata", "name"]).to_owned(),
        name => name.to_owned(),
    };
    let node = text(&binding, &["target", "name"]).to_owned();
    if node.is_empty() {
        let causes = vec![Cause::required("target.name", "")];
        return Err(Failure::invalid_named("", "Binding", &name, causes));
    }
    let pods = tripod_schema::registry()
        .find("", "v1", "pods")
        .ok_or_else(Failure::no_page)?;
    let pod = Target {
        kind: pods,
        name: name.clone(),
        sub: None,
        ..target.clone()
    };
    let now = tripod_schema::decode::format_time(call.now(), false);
    objects::change(call, &pod, |old| {
        let assigned = text(old, &["spec", "nodeName"]);
        if !assigned.is_empty() {
            return Err(Failure::conflict(
                pods,
                &name,
                format_args!("pod {name} is already assigned to node {assigned:?}"),
            ));
        }
        if !text(old, &["metadata", "deletionTimestamp"]).is_empty() {
            return Err(Failure::conflict(
                pods,
                &name,
                format_args!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        let mut new = old.clone();
        object_mut(&mut new, &["metadata"]).remove("resourceVersion");
        object_mut(&mut new, &["spec"]).insert("nodeName".into(), node.clone().into());
        Ok(new)
    })
    .await?;
    let status = Target {
        sub: pods.sub("status"),
        ..pod
    };
    objects::change(call, &status, |old| {
        let mut new = old.clone();
        object_mut(&mut new, &["metadata"]).remove("resourceVersion");
        let conditions = object_mut(&mut new, &["status"]).entry("conditions").or_insert_with(|| json!([]));
        if let Value::Array(conditions) = conditions {
            conditions.retain(|c| c["type"] != "PodScheduled");
            conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
        }
        Ok(new)
    })
    .await?;
    created(call)
}

/// `eviction` of a pod: it goes, unless a disruption budget forbids it.
pub(crate) async fn evict(call: &Call, target: &Target) -> Reply {
    let eviction = read(call, "policy.v1.Eviction", "Eviction").await?;
    let mut options = DeleteOptions::of(&eviction["deleteOptions"])?;
    options.dry_run |= call.dry_run();
    let pod = parent(target);
    let state = call.manager.state();
    let stored = state
        .get(&objects::key(&pod))
        .ok_or_else(|| Failure::not_found(target.kind, &target.name))?
        .clone();
    let object: Value = serde_json::from_slice(&stored.bytes).map_err(Failure::internal)?;
    let ended = ["Succeeded", "Failed"].contains(&text(&object, &["status", "phase"]));
    let waits =
        text(&object, &["status", "phase"]) == "Pending" && text(&object, &["spec", "nodeName"]).is_empty();
    let leaves = !text(&object, &["metadata", "deletionTimestamp"]).is_empty();
    if !ended && !waits && !leaves {
        let kind = KindId::from("poddisruptionbudgets.policy");
        let budgets: Vec<Value> = state
            .iter(&kind, Some(&target.namespace))
            .filter_map(|o| serde_json::from_slice(&o.bytes).ok())
            .filter(|b: &Value| {
                let selector = tripod_schema::selector::LabelSelector::of(&b["spec"]["selector"]);
                b["spec"].get("selector").is_some() && selector.accepts(&object)
            })
            .collect();
        drop(state);
        match budgets.as_slice() {
            [] => {}
            [budget] => consume(call, target, &object, budget, options.dry_run).await?,
            _ => {
                return Err(Failure::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        }
    }
    if !options.dry_run && !ended && !waits && !leaves {
        note_disruption(call, &pod).await?;
    }
    objects::remove(call, &pod, &options).await?;
    created(call)
}

/// Says on the pod why it goes.
async fn note_disruption(call: &Call, pod: &Target) -> Result<()> {
    let status = Target {
        sub: pod.kind.sub("status"),
        ..pod.clone()
    };
    let now = tripod_schema::decode::format_time(call.now(), false);
    let noted = objects::change(call, &status, |old| {
        let mut new = old.clone();
        object_mut(&mut new, &["metadata"]).remove("resourceVersion");
        let conditions = object_mut(&mut new, &["status"])
            .entry("conditions")
            .or_insert_with(|| json!([]));
        if let Value::Array(conditions) = conditions {
            conditions.retain(|c| c["type"] != "DisruptionTarget");
            conditions.push(json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
                "lastTransitionTime": now,
            }));
        }
        Ok(new)
    });
    noted.await.map(drop)
}

/// Takes one disruption from a budget.
async fn consume(call: &Call, target: &Target, pod: &Value, budget: &Value, dry: bool) -> Result<()> {
    let name = text(budget, &["metadata", "name"]).to_owned();
    let healthy = list(pod, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True");
    let always = text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    let enough = int(budget, &["status", "currentHealthy"]).unwrap_or(0)
        >= int(budget, &["status", "desiredHealthy"]).unwrap_or(0)
        && int(budget, &["status", "desiredHealthy"]).unwrap_or(0) > 0;
    if !healthy && (always || enough) {
        return Ok(());
    }
    let kind = tripod_schema::registry()
        .find("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(Failure::no_page)?;
    let place = Target {
        kind,
        namespace: target.namespace.clone(),
        name: name.clone(),
        sub: kind.sub("status"),
        rest: String::new(),
        watch: false,
    };
    let now = tripod_schema::decode::format_time(call.now(), false);
    let violated = |why: String| {
        let mut failure = Failure::new(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        failure.details.causes = vec![Cause {
            reason: "DisruptionBudget",
            message: why,
            field: String::new(),
        }];
        failure
    };
    objects::change(call, &place, |old| {
        let observed = int(old, &["status", "observedGeneration"]).unwrap_or(0);
        if observed < int(old, &["metadata", "generation"]).unwrap_or(0) {
            let why = format!("The disruption budget {name} is still being processed by the server.");
            let mut failure = violated(why);
            failure.details.retry_after = Some(10);
            return Err(failure);
        }
        let allowed = int(old, &["status", "disruptionsAllowed"]).unwrap_or(0);
        if allowed <= 0 {
            let (wants, has) = (
                int(old, &["status", "desiredHealthy"]).unwrap_or(0),
                int(old, &["status", "currentHealthy"]).unwrap_or(0),
            );
            return Err(violated(format!(
                "The disruption budget {name} needs {wants} healthy pods and has {has} currently"
            )));
        }
        let mut new = old.clone();
        if dry {
            return Ok(new);
        }
        object_mut(&mut new, &["metadata"]).remove("resourceVersion");
        object_mut(&mut new, &["status"]).insert("disruptionsAllowed".into(), (allowed - 1).into());
        object_mut(&mut new, &["status", "disruptedPods"]).insert(target.name.clone(), now.clone().into());
        Ok(new)
    })
    .await
    .map(drop)
}

/// `token` of a service account.
pub(crate) async fn token(call: &Call, target: &Target) -> Reply {
    let request = read(call, "authentication.v1.TokenRequest", "TokenRequest").await?;
    let seconds = int(&request, &["spec", "expirationSeconds"]).unwrap_or(3600);
    if !(600..=1 << 32).contains(&seconds) {
        let why = if seconds < 600 {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let causes = vec![Cause::invalid("spec.expirationSeconds", &seconds.into(), why)];
        return Err(Failure::invalid_named(
            "authentication.k8s.io",
            "TokenRequest",
            &target.name,
            causes,
        ));
    }
    let state = call.manager.state();
    let key = Key::new("serviceaccounts", target.namespace.as_str(), target.name.as_str());
    let account = state
        .get(&key)
        .ok_or_else(|| Failure::not_found(target.kind, &target.name))?;
    let bound = &request["spec"]["boundObjectRef"];
    let bound = match text(bound, &["kind"]) {
        "" => None,
        kind @ ("Pod" | "Secret" | "Node") => Some((
            kind.to_owned(),
            text(bound, &["name"]).to_owned(),
            text(bound, &["uid"]).to_owned(),
        )),
        other => {
            return Err(Failure::bad_request(format_args!(
                "cannot bind token for serviceaccount {:?} to object of kind {other:?}",
                target.name
            )));
        }
    };
    let audiences: Vec<String> = list(&request, &["spec", "audiences"])
        .iter()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let wish = crate::token::Wish {
        namespace: &target.namespace,
        account: &target.name,
        account_uid: &account.uid,
        audiences: &audiences,
        seconds,
        bound,
        kept_in: None,
    };
    let (token, expires) = crate::token::issue(&call.shared, &call.manager, &wish).await?;
    let mut answer = request.clone();
    let spec = object_mut(&mut answer, &["spec"]);
    spec.insert("expirationSeconds".into(), seconds.into());
    if audiences.is_empty() {
        spec.insert("audiences".into(), json!([crate::token::ISSUER]));
    }
    let map = object_mut(&mut answer, &[]);
    map.insert("apiVersion".into(), "authentication.k8s.io/v1".into());
    map.insert("kind".into(), "TokenRequest".into());
    map.insert("metadata".into(), json!({"name": target.name, "namespace": target.namespace, "creationTimestamp": tripod_schema::decode::format_time(call.now(), false)}));
    map.insert(
        "status".into(),
        json!({"token": token, "expirationTimestamp": expires}),
    );
    value_reply(call, StatusCode::CREATED, &answer)
}
