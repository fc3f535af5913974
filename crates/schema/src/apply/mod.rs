//! Who owns which field, and server-side apply.
//!
//! Each writer of an object has an entry in `metadata.managedFields` with the set of fields that it wrote. Applying a
//! configuration merges it into the object, takes away what the same writer no longer says, and is refused where it
//! would change what another writer owns.

mod merge;
mod set;

use serde_json::{Value, json};

use crate::failure::{Cause, Failure, Result};
use crate::kinds::Kind;
use crate::types::{Merge, types};
use crate::value::{list, object_mut, text};
use merge::{merged, without};
pub use set::Set;

/// A write, as managed fields remember it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer<'a> {
    /// Who.
    pub manager: &'a str,
    /// Through which subresource; empty: the object itself.
    pub subresource: &'a str,
    /// When, RFC 3339.
    pub time: &'a str,
}

/// An entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: String,
    apply: bool,
    api_version: String,
    subresource: String,
    time: String,
    set: Set,
}

fn read(object: &Value) -> Vec<Entry> {
    let entries = list(object, &["metadata", "managedFields"]).iter();
    entries
        .filter(|e| !text(e, &["manager"]).is_empty())
        .map(|e| Entry {
            manager: text(e, &["manager"]).to_owned(),
            apply: text(e, &["operation"]) == "Apply",
            api_version: text(e, &["apiVersion"]).to_owned(),
            subresource: text(e, &["subresource"]).to_owned(),
            time: text(e, &["time"]).to_owned(),
            set: Set::read(&e["fieldsV1"]),
        })
        .collect()
}

fn write(object: &mut Value, entries: Vec<Entry>) {
    let shown: Vec<Value> = entries
        .into_iter()
        .filter(|e| !e.set.is_empty())
        .map(|e| {
            let mut entry = json!({
                "manager": e.manager,
                "operation": if e.apply { "Apply" } else { "Update" },
                "apiVersion": e.api_version,
                "time": e.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": e.set.write(),
            });
            if !e.subresource.is_empty() {
                entry["subresource"] = e.subresource.into();
            }
            entry
        })
        .collect();
    let meta = object_mut(object, &["metadata"]);
    if shown.is_empty() {
        meta.remove("managedFields");
    } else {
        meta.insert("managedFields".into(), shown.into());
    }
}

/// The fields of an object that somebody can own.
fn owned(object: &Value, kind: &Kind, subresource: &str) -> Set {
    let mut set = Set::of(object, &types().named(kind.schema), &Merge::Granular);
    strip(&mut set, kind, subresource);
    set
}

/// Leaves out what is the server's, and what this way of writing does not write.
fn strip(set: &mut Set, kind: &Kind, subresource: &str) {
    for member in ["f:apiVersion", "f:kind"] {
        set.children.remove(member);
    }
    if let Some(meta) = set.children.get_mut("f:metadata") {
        const SERVERS: [&str; 11] = [
            "f:name",
            "f:namespace",
            "f:uid",
            "f:resourceVersion",
            "f:creationTimestamp",
            "f:generation",
            "f:managedFields",
            "f:selfLink",
            "f:deletionTimestamp",
            "f:deletionGracePeriodSeconds",
            "f:generateName",
        ];
        for member in SERVERS {
            meta.children.remove(member);
        }
        if let Some(annotations) = meta.children.get_mut("f:annotations") {
            annotations
                .children
                .retain(|name, _| !name.starts_with("f:tripod.dev/"));
        }
    }
    if kind.has_status() {
        if subresource == "status" {
            set.children
                .retain(|name, _| name == "f:status" || name == "f:metadata");
        } else {
            set.children.remove("f:status");
        }
    }
    set.prune();
}

/// Notes in `new` who wrote what changed from `old` (none: the object is new).
pub fn update(kind: &Kind, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let mut entries = match old {
        Some(old) => {
            // A list that the client emptied is a wish to forget.
            let emptied = new["metadata"].get("managedFields").is_some_and(|l| {
                l.as_array().is_some_and(|l| {
                    l.is_empty()
                        || l.iter()
                            .all(|e| e.as_object().is_none_or(serde_json::Map::is_empty))
                })
            });
            if emptied { Vec::new() } else { read(old) }
        }
        None => Vec::new(),
    };
    let ty = types().named(kind.schema);
    let nothing = Value::Null;
    let before = old.unwrap_or(&nothing);
    let mut changed = Set::changed(before, new, &ty, &Merge::Granular);
    strip(&mut changed, kind, writer.subresource);
    let mut gone = Set::of(before, &ty, &Merge::Granular).minus(&Set::of(new, &ty, &Merge::Granular));
    gone.prune();
    let api_version = kind.api_version();
    let own = |e: &Entry| {
        !e.apply
            && e.manager == writer.manager
            && e.subresource == writer.subresource
            && e.api_version == api_version
    };
    for entry in &mut entries {
        entry.set = entry.set.minus(&gone);
        if !own(entry) {
            entry.set = entry.set.minus(&changed);
        }
        entry.set.prune();
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|e| own(e)) {
            Some(entry) => {
                entry.set = entry.set.plus(&changed);
                writer.time.clone_into(&mut entry.time);
            }
            None => entries.push(Entry {
                manager: writer.manager.to_owned(),
                apply: false,
                api_version,
                subresource: writer.subresource.to_owned(),
                time: writer.time.to_owned(),
                set: changed,
            }),
        }
    }
    write(new, entries);
}

/// Applies a configuration to an object (none: it is made), and returns the new object.
///
/// # Errors
/// 409 naming the fields that others own, unless `force`.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value> {
    let ty = types().named(kind.schema);
    let mut config = config.clone();
    object_mut(&mut config, &["metadata"]).remove("managedFields");
    let applied = owned(&config, kind, writer.subresource);
    let nothing = json!({});
    let base = live.unwrap_or(&nothing);
    let mut entries = read(base);
    if live.is_some() && entries.is_empty() {
        // Whoever wrote it before anybody kept books.
        entries.push(Entry {
            manager: "before-first-apply".into(),
            apply: false,
            api_version: kind.api_version(),
            subresource: String::new(),
            time: writer.time.to_owned(),
            set: owned(base, kind, ""),
        });
    }
    let own = |e: &Entry| e.apply && e.manager == writer.manager && e.subresource == writer.subresource;
    let before = entries
        .iter()
        .find(|e| own(e))
        .map(|e| e.set.clone())
        .unwrap_or_default();
    let mut new = merged(base, &config, &ty, &Merge::Granular);
    let mut dropped = before.minus(&applied);
    for entry in entries.iter().filter(|e| !own(e)) {
        dropped = dropped.minus(&entry.set);
    }
    without(&mut new, &dropped, &ty);
    let mut changed = Set::changed(base, &new, &ty, &Merge::Granular);
    strip(&mut changed, kind, writer.subresource);
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|e| !own(e)) {
        let taken = entry.set.both(&changed).both(&applied);
        if taken.is_empty() {
            continue;
        }
        if force {
            entry.set = entry.set.minus(&taken);
            entry.set.prune();
        } else {
            conflicts.push((entry.clone(), taken.paths()));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict(kind, text(&config, &["metadata", "name"]), &conflicts));
    }
    let same = live.is_some() && before == applied && changed.is_empty() && dropped.is_empty();
    let time = entries.iter().find(|e| own(e)).map(|e| e.time.clone());
    entries.retain(|e| !own(e));
    entries.push(Entry {
        manager: writer.manager.to_owned(),
        apply: true,
        api_version: kind.api_version(),
        subresource: writer.subresource.to_owned(),
        // What changes nothing leaves no trace.
        time: time.filter(|_| same).unwrap_or_else(|| writer.time.to_owned()),
        set: applied,
    });
    if same {
        // In the order that it had.
        if let Some(live) = live {
            new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
            return Ok(new);
        }
    }
    write(&mut new, entries);
    Ok(new)
}

fn conflict(kind: &Kind, name: &str, conflicts: &[(Entry, Vec<String>)]) -> Failure {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let mut message = if count == 1 {
        "Apply failed with 1 conflict: ".to_owned()
    } else {
        format!("Apply failed with {count} conflicts: ")
    };
    let mut causes = Vec::new();
    for (i, (entry, paths)) in conflicts.iter().enumerate() {
        let mut who = format!("{:?}", entry.manager);
        if !entry.subresource.is_empty() {
            who.push_str(&format!(" with subresource {:?}", entry.subresource));
        }
        who.push_str(&format!(" using {}", entry.api_version));
        if i > 0 {
            message.push('\n');
        }
        match paths.as_slice() {
            [one] => message.push_str(&format!("conflict with {who}: {one}")),
            many => {
                message.push_str(&format!("conflicts with {who}:"));
                many.iter()
                    .for_each(|path| message.push_str(&format!("\n- {path}")));
            }
        }
        causes.extend(paths.iter().map(|path| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {who}"),
            field: path.clone(),
        }));
    }
    let mut failure = Failure::new(409, "Conflict", message).about(kind.group, kind.plural, name);
    failure.details.causes = causes;
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::registry;

    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            subresource: "",
            time: "2024-01-01T00:00:00Z",
        }
    }

    fn deployments() -> &'static Kind {
        registry().find("apps", "v1", "deployments").unwrap()
    }

    fn config(replicas: Option<i64>, image: &str) -> Value {
        let mut c = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]}}}});
        if let Some(n) = replicas {
            c["spec"]["replicas"] = n.into();
        }
        c
    }

    #[test]
    fn applying_owns_what_is_said() {
        let made = apply(deployments(), None, &config(Some(3), "i"), &writer("one"), false).unwrap();
        let fields = &made["metadata"]["managedFields"][0];
        assert_eq!(fields["operation"], "Apply");
        assert_eq!(
            fields["fieldsV1"],
            json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
        );
        let again = apply(
            deployments(),
            Some(&made),
            &config(Some(3), "i"),
            &writer("one"),
            false,
        )
        .unwrap();
        assert_eq!(again, made, "applying twice changes nothing");
    }

    #[test]
    fn what_is_no_longer_said_goes() {
        let made = apply(deployments(), None, &config(Some(3), "i"), &writer("one"), false).unwrap();
        let less = apply(
            deployments(),
            Some(&made),
            &config(None, "i"),
            &writer("one"),
            false,
        )
        .unwrap();
        assert!(less["spec"].get("replicas").is_none());
        assert_eq!(less["spec"]["template"], made["spec"]["template"]);
    }

    #[test]
    fn others_fields_are_kept_or_taken_by_force() {
        let made = apply(deployments(), None, &config(Some(3), "i"), &writer("one"), false).unwrap();
        let refused = apply(
            deployments(),
            Some(&made),
            &config(Some(5), "i"),
            &writer("two"),
            false,
        )
        .unwrap_err();
        assert_eq!(refused.code, 409);
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"one\" using apps/v1: .spec.replicas"
        );
        assert_eq!(refused.details.causes[0].field, ".spec.replicas");
        // The same values are shared.
        let shared = apply(
            deployments(),
            Some(&made),
            &config(Some(3), "i"),
            &writer("two"),
            false,
        )
        .unwrap();
        assert_eq!(shared["metadata"]["managedFields"].as_array().unwrap().len(), 2);
        // What another still says stays.
        let less = apply(
            deployments(),
            Some(&shared),
            &config(None, "i"),
            &writer("one"),
            false,
        )
        .unwrap();
        assert_eq!(less["spec"]["replicas"], 3);
        let forced = apply(
            deployments(),
            Some(&made),
            &config(Some(5), "i"),
            &writer("two"),
            true,
        )
        .unwrap();
        assert_eq!(forced["spec"]["replicas"], 5);
        let one = &forced["metadata"]["managedFields"][0];
        assert!(one["fieldsV1"]["f:spec"].get("f:replicas").is_none());
    }

    #[test]
    fn updates_take_over_what_they_change() {
        let made = apply(deployments(), None, &config(Some(3), "i"), &writer("one"), false).unwrap();
        let mut new = made.clone();
        new["spec"]["replicas"] = 7.into();
        update(deployments(), Some(&made), &mut new, &writer("scaler"));
        let entries = new["metadata"]["managedFields"].as_array().unwrap();
        assert!(entries[0]["fieldsV1"]["f:spec"].get("f:replicas").is_none());
        assert_eq!(entries[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(entries[1]["operation"], "Update");
        let refused = apply(
            deployments(),
            Some(&new),
            &config(Some(3), "i"),
            &writer("one"),
            false,
        )
        .unwrap_err();
        assert!(refused.message.contains("conflict with \"scaler\""));
    }

    #[test]
    fn objects_without_books_are_taken_over_carefully() {
        let live =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
        let kind = registry().find("", "v1", "configmaps").unwrap();
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "2"}});
        let refused = apply(kind, Some(&live), &config, &writer("one"), false).unwrap_err();
        assert!(refused.message.contains("before-first-apply"));
    }
}
