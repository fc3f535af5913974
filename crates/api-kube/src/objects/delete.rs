//! Deleting objects: at once, with grace, or when those agree who must.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tripod_schema::decode::{Findings, format_time};
use tripod_schema::failure::Result;
use tripod_schema::value::{at, list, object_mut, text};
use tripod_schema::{Failure, Kind};
use tripod_store::{Expected, Key, StoredObject, Txn};

use super::{Selection, fault, key, prepare};
use crate::body;
use crate::call::Call;
use crate::convert::outward_bytes;
use crate::encode::{list_metadata, list_reply, object_reply, value_reply};
use crate::reply::Reply;
use crate::target::Target;

const ATTEMPTS: usize = 16;
/// Seconds that a pod has to end when neither it nor the request says.
const GRACE: i64 = 30;

/// What a deletion asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    revision: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// From the request's body and query.
    async fn read(call: &Call) -> Result<Self> {
        let bytes = body::read(call).await?;
        let options = if bytes.is_empty() {
            json!({})
        } else {
            body::value(call, &bytes, &mut Findings::default())?
        };
        let mut read = Self::of(&options)?;
        read.dry_run |= call.dry_run();
        if let Some(grace) = call.query.number("gracePeriodSeconds")? {
            read.grace = Some(grace);
        }
        if let Some(policy) = call.query.get("propagationPolicy") {
            read.propagation = Some(policy.to_owned());
        } else if call.query.get("orphanDependents").is_some() {
            let orphan = call.query.flag("orphanDependents");
            read.propagation = Some(if orphan { "Orphan" } else { "Background" }.into());
        }
        read.check()
    }

    /// From an object `DeleteOptions`.
    pub(crate) fn of(options: &Value) -> Result<Self> {
        let string = |path: &[&str]| match text(options, path) {
            "" => None,
            text => Some(text.to_owned()),
        };
        let mut propagation = string(&["propagationPolicy"]);
        if let Some(orphan) = options["orphanDependents"].as_bool() {
            propagation = Some(if orphan { "Orphan" } else { "Background" }.into());
        }
        Self {
            grace: at(options, &["gracePeriodSeconds"]).and_then(Value::as_i64),
            propagation,
            uid: string(&["preconditions", "uid"]),
            revision: string(&["preconditions", "resourceVersion"]),
            dry_run: !list(options, &["dryRun"]).is_empty(),
        }
        .check()
    }

    fn check(self) -> Result<Self> {
        let bad = |field: &str, why: String| {
            Failure::new(
                422,
                "Invalid",
                format_args!("DeleteOptions.meta.k8s.io \"\" is invalid: {field}: {why}"),
            )
        };
        if let Some(policy) = &self.propagation
            && !["Orphan", "Background", "Foreground"].contains(&policy.as_str())
        {
            let why = format!(
                "Unsupported value: {policy:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            );
            return Err(bad("propagationPolicy", why));
        }
        Ok(self)
    }
}

/// `DELETE` of an object.
pub(super) async fn delete(call: &Call, target: &Target) -> Reply {
    let options = DeleteOptions::read(call).await?;
    match remove(call, target, &options).await? {
        Outcome::Gone(uid, pod) if target.kind.resource() == "pods" => {
            let _ = uid;
            object_reply(call, target.kind, StatusCode::OK, &pod)
        }
        Outcome::Gone(uid, _) => value_reply(call, StatusCode::OK, &success(target.kind, &target.name, &uid)),
        Outcome::Marked(bytes) => object_reply(call, target.kind, StatusCode::OK, &bytes),
    }
}

fn success(kind: &Kind, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "details": details})
}

/// What a deletion came to.
pub(crate) enum Outcome {
    /// It is no more: its uid and last state.
    Gone(String, Bytes),
    /// It is marked, and goes later.
    Marked(Bytes),
}

/// Deletes an object, or marks it.
pub(crate) async fn remove(call: &Call, target: &Target, options: &DeleteOptions) -> Result<Outcome> {
    let kind = target.kind;
    for attempt in 1.. {
        let state = call.manager.state();
        let stored = state
            .get(&key(target))
            .ok_or_else(|| Failure::not_found(kind, &target.name))?
            .clone();
        drop(state);
        check_preconditions(target, &stored, options)?;
        check_protected(kind, &target.name)?;
        let old: Value = serde_json::from_slice(&stored.bytes).map_err(Failure::internal)?;
        let key = key(target);
        let Some(mut marked) = marked(call, kind, &old, options) else {
            let gone = || outward_bytes(kind, &stored.bytes);
            if options.dry_run {
                return Ok(Outcome::Gone(stored.uid.to_string(), gone()));
            }
            let txn = Txn::new()
                .check(key.clone(), Expected::Revision(stored.revision))
                .delete(key);
            match call.manager.write(txn).await {
                Ok(_) => return Ok(Outcome::Gone(stored.uid.to_string(), gone())),
                Err(e) if fault::overtaken(&e) && attempt < ATTEMPTS => continue,
                Err(e) => return Err(fault::failure(kind, &target.name, e)),
            }
        };
        if marked == old {
            return Ok(Outcome::Marked(outward_bytes(kind, &stored.bytes)));
        }
        let bytes = prepare::stored_bytes(kind, &mut marked)?;
        if options.dry_run {
            return Ok(Outcome::Marked(outward_bytes(kind, &bytes.into())));
        }
        let txn = Txn::new().update(key, stored.revision, bytes, stored.claims.to_vec());
        match call.manager.write(txn).await {
            Ok(done) => {
                let stored = done.objects.into_iter().flatten().next();
                let stored = stored.ok_or_else(|| Failure::internal("nothing was written"))?;
                return Ok(Outcome::Marked(outward_bytes(kind, &stored.bytes)));
            }
            Err(e) if fault::overtaken(&e) && attempt < ATTEMPTS => {}
            Err(e) => return Err(fault::failure(kind, &target.name, e)),
        }
    }
    Err(Failure::modified(kind, &target.name))
}

fn check_preconditions(target: &Target, stored: &StoredObject, options: &DeleteOptions) -> Result<()> {
    let conflict = |what: &str, asked: &str, found: &str| {
        Failure::conflict(
            target.kind,
            &target.name,
            format_args!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
            ),
        )
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != &*stored.uid) {
        return Err(conflict("UID", uid, &stored.uid));
    }
    let revision = stored.revision.to_string();
    match options.revision.as_deref() {
        Some(asked) if asked != revision => Err(conflict("ResourceVersion", asked, &revision)),
        _ => Ok(()),
    }
}

/// Namespaces that a cluster cannot be without.
fn check_protected(kind: &Kind, name: &str) -> Result<()> {
    let protected = ["default", "kube-system", "kube-public", "swarm"];
    if kind.resource() == "namespaces" && protected.contains(&name) {
        return Err(Failure::forbidden(
            kind,
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// The object as it waits for its end; none when it can go at once.
fn marked(call: &Call, kind: &Kind, old: &Value, options: &DeleteOptions) -> Option<Value> {
    let mut new = old.clone();
    let now = call.now();
    set_propagation(&mut new, options.propagation.as_deref());
    let held = !list(&new, &["metadata", "finalizers"]).is_empty();
    match kind.resource().as_str() {
        "pods" => return marked_pod(new, held, options.grace, now),
        "namespaces" => {
            let spec_held = !list(&new, &["spec", "finalizers"]).is_empty();
            if !held && !spec_held {
                return None;
            }
            prepare::mark_deleted(&mut new, now, 0);
            object_mut(&mut new, &["status"]).insert("phase".into(), "Terminating".into());
            return Some(new);
        }
        _ => {}
    }
    if !held {
        return None;
    }
    if text(old, &["metadata", "deletionTimestamp"]).is_empty() {
        prepare::mark_deleted(&mut new, now, 0);
    }
    Some(new)
}

/// How dependents are dealt with is told to the collector by a finalizer.
fn set_propagation(object: &mut Value, policy: Option<&str>) {
    const WORDS: [&str; 2] = ["orphan", "foregroundDeletion"];
    let Some(policy) = policy else { return };
    let meta = object_mut(object, &["metadata"]);
    let mut finalizers = match meta.remove("finalizers") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    finalizers.retain(|f| !WORDS.iter().any(|w| f == w));
    match policy {
        "Orphan" => finalizers.push(WORDS[0].into()),
        "Foreground" => finalizers.push(WORDS[1].into()),
        _ => {}
    }
    if !finalizers.is_empty() {
        meta.insert("finalizers".into(), finalizers.into());
    }
}

/// A pod is ended by its node, within its grace; one that no node has goes at once. A Swarm task's end is the wish of
/// its service's orchestrator, which makes another.
fn marked_pod(mut pod: Value, held: bool, grace: Option<i64>, now: tripod_model::Time) -> Option<Value> {
    if let Some(state) = at(&pod, &["metadata", "annotations", "tripod.dev/state"]).and_then(Value::as_str)
        && at(&pod, &["metadata", "annotations", "tripod.dev/pod"])
            .and_then(Value::as_str)
            .is_some_and(|e| e.contains("\"swarm\""))
    {
        let mut state: Value = serde_json::from_str(state).unwrap_or_default();
        state["desired"] = "remove".into();
        object_mut(&mut pod, &["metadata", "annotations"])
            .insert("tripod.dev/state".into(), state.to_string().into());
        return Some(pod);
    }
    let own = at(&pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    let mut grace = grace.or(own).unwrap_or(GRACE);
    if grace < 0 {
        grace = 1;
    }
    let ended = ["Succeeded", "Failed"].contains(&text(&pod, &["status", "phase"]));
    if text(&pod, &["spec", "nodeName"]).is_empty() || ended {
        grace = 0;
    }
    if grace == 0 && !held {
        return None;
    }
    let asked = at(&pod, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    let first = text(&pod, &["metadata", "deletionTimestamp"]).is_empty();
    if !first && asked.is_some_and(|a| a <= grace) {
        return Some(pod);
    }
    let end = now + jiff::SignedDuration::from_secs(grace);
    let meta = object_mut(&mut pod, &["metadata"]);
    meta.insert("deletionTimestamp".into(), format_time(end, false).into());
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    if first && let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
        meta.insert("generation".into(), (generation + 1).into());
    }
    Some(pod)
}

/// `DELETE` of a collection.
pub(super) async fn collection(call: &Call, target: &Target) -> Reply {
    let options = DeleteOptions::read(call).await?;
    let selection = Selection::of(call, target)?;
    let state = call.manager.state();
    let namespace =
        (target.kind.namespaced && !target.namespace.is_empty()).then_some(target.namespace.as_str());
    let chosen: Vec<Key> = state
        .iter(&target.kind.stored().as_str().into(), namespace)
        .filter(|o| selection.accepts(o))
        .map(|o| o.key.clone())
        .collect();
    drop(state);
    let mut items = Vec::new();
    for key in chosen {
        let one = Target {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            ..target.clone()
        };
        match remove(call, &one, &options).await {
            Ok(Outcome::Gone(_, bytes) | Outcome::Marked(bytes)) => items.push(bytes),
            // Somebody else was faster.
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let revision = call.manager.state().revision();
    list_reply(call, target.kind, list_metadata(revision, None, None), items)
}
