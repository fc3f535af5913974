//! What can be done from a page, and the doing of it. Objects of the Kubernetes API are changed through it, Swarm's
//! services and nodes through the engine's operations.

use http::Method;
use serde_json::{Value, json};
use tripod_engine::{Manager, ServiceUpdate};
use tripod_model::node::{Availability, Node};
use tripod_model::object::{Kind as _, decode};
use tripod_model::swarm::{ServiceMode, SwarmService};
use tripod_model::{Error, Result};

use crate::call::{Call, Ctx};
use crate::kinds::{KindDef, parts};
use crate::object::{Obj, decoded};
use crate::pages::detail;
use crate::view::{Action, Field, Page};
use crate::{kube, manifest};

/// What follows a change.
pub(crate) enum Done {
    /// Another page.
    Go(String),
    /// The same page, with what was refused.
    Again(Box<Page>),
}

/// What can be done with an object.
pub(crate) fn offered(ctx: &Ctx, object: &Obj) -> Vec<Action> {
    let key = &object.stored.key;
    let mut actions = Vec::new();
    let mut add = |verb: &'static str, label: &str, ask: &str, danger: bool, fields: Vec<Field>| {
        let mut path = parts(key.kind.as_str(), &key.namespace, &key.name);
        path.push(verb);
        actions.push(Action {
            label: ctx.t(label).to_owned(),
            href: ctx.ui.url(&path),
            ask: if ask.is_empty() {
                String::new()
            } else {
                ctx.t(ask).to_owned()
            },
            danger,
            fields,
        });
    };
    let scale = |pointer: &str| {
        let now = object.value.pointer(pointer).and_then(Value::as_i64).unwrap_or(1);
        vec![Field {
            name: "replicas",
            label: ctx.t("Replicas").to_owned(),
            value: now.to_string(),
            kind: "number",
        }]
    };
    const SCALE: &str = "How many replicas should there be?";
    const RESTART: &str = "Replace all pods by new ones, as a rollout?";
    const BACK: &str = "Go back to the revision before this one?";
    match key.kind.as_str() {
        "deployments.apps" => {
            add("scale", "Scale", SCALE, false, scale("/spec/replicas"));
            add("restart", "Restart", RESTART, false, Vec::new());
            add("rollback", "Roll back", BACK, false, Vec::new());
            let paused = object.bool("/spec/paused");
            let (verb, label) = if paused {
                ("resume", "Resume")
            } else {
                ("pause", "Pause")
            };
            add(verb, label, "", false, Vec::new());
        }
        "statefulsets.apps" => {
            add("scale", "Scale", SCALE, false, scale("/spec/replicas"));
            add("restart", "Restart", RESTART, false, Vec::new());
        }
        "replicasets.apps" => add("scale", "Scale", SCALE, false, scale("/spec/replicas")),
        "daemonsets.apps" => add("restart", "Restart", RESTART, false, Vec::new()),
        "cronjobs.batch" => {
            add("trigger", "Run now", "", false, Vec::new());
            let suspended = object.bool("/spec/suspend");
            let (verb, label) = if suspended {
                ("resume", "Resume")
            } else {
                ("suspend", "Suspend")
            };
            add(verb, label, "", false, Vec::new());
        }
        "swarmservices.swarm.tripod.dev" => {
            if object.value.pointer("/spec/mode/replicated").is_some() {
                add(
                    "scale",
                    "Scale",
                    SCALE,
                    false,
                    scale("/spec/mode/replicated/replicas"),
                );
            }
            add("restart", "Restart", RESTART, false, Vec::new());
            if object.value.get("previousSpec").is_some() {
                add("rollback", "Roll back", BACK, false, Vec::new());
            }
        }
        "nodes" => {
            let closed =
                object.bool("/spec/unschedulable") || object.str("/spec/swarm/availability") != "active";
            if closed && object.value.pointer("/spec/swarm/availability").is_some()
                || object.bool("/spec/unschedulable")
            {
                add("uncordon", "Open for pods", "", false, Vec::new());
            } else {
                add("cordon", "Close for new pods", "", false, Vec::new());
            }
            add(
                "drain",
                "Drain",
                "Move all pods of this node to others?",
                true,
                Vec::new(),
            );
        }
        _ => {}
    }
    if deletable(key.kind.as_str()) {
        add(
            "delete",
            "Delete",
            "Delete this for good, with everything it owns?",
            true,
            Vec::new(),
        );
    }
    actions
}

fn deletable(resource: &str) -> bool {
    !matches!(
        resource,
        "nodes"
            | "swarmclusters.swarm.tripod.dev"
            | "ecsservices.ecs.tripod.dev"
            | "ecsclusters.ecs.tripod.dev"
    )
}

/// Does what a form asks for.
pub(crate) async fn perform(ctx: &Ctx, call: &Call) -> Result<Done> {
    if call.path == ["new"] {
        return manifest::create(ctx, call).await;
    }
    let gone = || Error::not_found(ctx.t("It may have been deleted, or replaced by another."));
    let (object, rest) = detail::find(ctx, &call.path).ok_or_else(gone)?;
    let [verb] = rest else { return Err(gone()) };
    let key = &object.stored.key;
    let page = ctx.ui.url(&parts(key.kind.as_str(), &key.namespace, &key.name));
    match (key.kind.as_str(), verb.as_str()) {
        (_, "yaml") => return manifest::save(ctx, call, &object, page).await,
        ("swarmservices.swarm.tripod.dev", verb) => swarm(ctx, call, &object, verb).await?,
        ("nodes", verb) => node(ctx, &object, verb).await?,
        (_, verb) => kubernetes(ctx, call, &object, verb).await?,
    }
    if verb != "delete" {
        return Ok(Done::Go(page));
    }
    let list = KindDef::by_resource(key.kind.as_str());
    Ok(Done::Go(match list {
        Some(def) => ctx.ui.url(&[def.slug]),
        None => ctx.ui.url(&["objects", key.kind.as_str()]),
    }))
}

fn replicas(call: &Call) -> Result<u64> {
    let given = call.field("replicas").trim();
    let number = given.parse().ok().filter(|n| *n <= 1_000_000);
    number.ok_or_else(|| Error::invalid(format_args!("{given:?} is not a number of replicas")).at("replicas"))
}

async fn kubernetes(ctx: &Ctx, call: &Call, object: &Obj, verb: &str) -> Result<()> {
    let patch = match verb {
        "scale" => json!({"spec": {"replicas": replicas(call)?}}),
        "restart" => json!({"spec": {"template": {"metadata": {"annotations": {
            "kubectl.kubernetes.io/restartedAt": format!("{:.0}", ctx.ui.now),
        }}}}}),
        "pause" => json!({"spec": {"paused": true}}),
        "resume" if object.kind() == "CronJob" => json!({"spec": {"suspend": false}}),
        "resume" => json!({"spec": {"paused": false}}),
        "suspend" => json!({"spec": {"suspend": true}}),
        "trigger" => return trigger(ctx, object).await,
        "rollback" => return rollback(ctx, object).await,
        "delete" => return kube::delete(ctx, object).await,
        _ => return Err(Error::not_found(format_args!("nothing is called {verb}"))),
    };
    kube::merge(ctx, object, &patch).await.map(drop)
}

/// Makes a job of a cron job's template.
async fn trigger(ctx: &Ctx, cron: &Obj) -> Result<()> {
    let template = cron
        .value
        .pointer("/spec/jobTemplate")
        .cloned()
        .unwrap_or_default();
    let mut annotations = template
        .pointer("/metadata/annotations")
        .cloned()
        .unwrap_or_else(|| json!({}));
    annotations["cronjob.kubernetes.io/instantiate"] = json!("manual");
    let base: String = cron.name().chars().take(40).collect();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": format!("{base}-manual-{:06x}", rand::random::<u32>() & 0xff_ffff),
            "namespace": cron.namespace(),
            "labels": template.pointer("/metadata/labels"),
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": cron.name(),
                "uid": cron.str("/metadata/uid"), "controller": true,
            }],
        },
        "spec": template["spec"],
    });
    let path = kube::collection("batch/v1", "jobs.batch", cron.namespace());
    kube::ask(ctx, Method::POST, &path, "application/json", job.to_string())
        .await
        .map(drop)
}

/// Takes up the template of the revision before.
async fn rollback(ctx: &Ctx, deployment: &Obj) -> Result<()> {
    let revision = |o: &Obj| {
        o.annotation("deployment.kubernetes.io/revision")
            .parse::<i64>()
            .unwrap_or(0)
    };
    let present = revision(deployment);
    let sets = ctx.state.dependents(&deployment.stored.uid).map(Obj::new);
    let before = sets
        .filter(|o| o.kind() == "ReplicaSet" && revision(o) < present)
        .max_by_key(revision)
        .ok_or_else(|| Error::invalid("no rollout history found: there is no revision before this one"))?;
    let mut template = before
        .value
        .pointer("/spec/template")
        .cloned()
        .unwrap_or_default();
    if let Some(labels) = template
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut)
    {
        labels.remove("pod-template-hash");
    }
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    kube::json_patch(ctx, deployment, &patch).await.map(drop)
}

pub(crate) fn manager(ctx: &Ctx) -> Result<&Manager> {
    ctx.manager
        .as_deref()
        .ok_or_else(|| Error::unavailable("this node is no manager"))
}

async fn swarm(ctx: &Ctx, call: &Call, object: &Obj, verb: &str) -> Result<()> {
    let manager = manager(ctx)?;
    if verb == "delete" {
        return manager.service_remove(object.name()).await.map(drop);
    }
    let service: SwarmService = decode(&object.stored.bytes)?;
    let mut spec = service.spec.clone();
    let mut how = ServiceUpdate::default();
    match (verb, &mut spec.mode) {
        ("scale", ServiceMode::Replicated { replicas: wanted }) => *wanted = replicas(call)?,
        ("restart", _) => spec.task_template.force_update += 1,
        ("rollback", _) => how.rollback = true,
        _ => return Err(Error::not_found(format_args!("nothing is called {verb}"))),
    }
    let version = service.meta().revision();
    manager
        .service_update(object.name(), version, spec, how)
        .await
        .map(drop)
}

async fn node(ctx: &Ctx, object: &Obj, verb: &str) -> Result<()> {
    let closed = match verb {
        "cordon" | "drain" => true,
        "uncordon" => false,
        _ => return Err(Error::not_found(format_args!("nothing is called {verb}"))),
    };
    let patch = json!({"spec": {"unschedulable": if closed { json!(true) } else { Value::Null }}});
    kube::merge(ctx, object, &patch).await?;
    swarm_availability(ctx, object, verb).await?;
    if verb == "drain" {
        evict(ctx, object).await?;
    }
    Ok(())
}

/// The same for Swarm's tasks.
async fn swarm_availability(ctx: &Ctx, object: &Obj, verb: &str) -> Result<()> {
    let manager = manager(ctx)?;
    let fresh = manager.db().snapshot().get::<Node>("", object.name())?;
    let Some(node) = fresh.filter(|n| !n.spec.swarm.node_id.is_empty()) else {
        return Ok(());
    };
    let mut spec = node.spec.swarm.clone();
    spec.availability = match verb {
        "drain" => Availability::Drain,
        "cordon" => Availability::Pause,
        _ => Availability::Active,
    };
    if spec == node.spec.swarm {
        return Ok(());
    }
    let id = node.spec.swarm.node_id.clone();
    manager
        .node_update(&id, node.metadata.revision(), spec)
        .await
        .map(drop)
}

/// Asks every pod of a node that is not a daemon's to go elsewhere; budgets of disruption may refuse.
async fn evict(ctx: &Ctx, node: &Obj) -> Result<()> {
    let pods = decoded(&ctx.state, "pods", None).filter(|p| {
        p.str("/spec/nodeName") == node.name()
            && p.owner().is_none_or(|(kind, _)| kind != "DaemonSet")
            && p.namespace() != "swarm"
            && !matches!(p.str("/status/phase"), "Succeeded" | "Failed")
    });
    let mut refused = Vec::new();
    for pod in pods {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name(), "namespace": pod.namespace()},
        });
        let path = format!("{}/eviction", kube::path(&pod));
        if let Err(e) = kube::ask(ctx, Method::POST, &path, "application/json", eviction.to_string()).await
            && e.kind != tripod_model::ErrorKind::NotFound
        {
            refused.push(format!("{}/{}: {e}", pod.namespace(), pod.name()));
        }
    }
    match refused.as_slice() {
        [] => Ok(()),
        list => Err(Error::conflict(format_args!(
            "The node is closed, but these pods stay: {}",
            list.join("; ")
        ))),
    }
}
