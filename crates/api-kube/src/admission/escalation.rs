//! Nobody gives rights that they do not have.

use serde_json::Value;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, name, text};

use super::{Scene, refused};
use crate::authz::Attributes;
use crate::rbac::Rule;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Judges roles and bindings.
pub(super) fn check(scene: &Scene<'_>, old: Option<&Value>, object: &Value) -> Result<()> {
    let user = &scene.call.user;
    if scene.kind.group != GROUP || user.is_master() {
        return Ok(());
    }
    let rules = scene.call.shared.rules.rules(&scene.call.manager);
    let may = |verb: &str, resource: &str, title: &str| {
        let asked = Attributes {
            verb: verb.into(),
            group: GROUP.into(),
            resource: resource.into(),
            namespace: scene.namespace.into(),
            name: title.into(),
            path: String::new(),
        };
        rules.allow(user, &asked)
    };
    let exceeded = match scene.kind.kind {
        "Role" | "ClusterRole" => {
            let same = old.is_some_and(|o| {
                o["rules"] == object["rules"] && o.get("aggregationRule") == object.get("aggregationRule")
            });
            if same || may("escalate", scene.kind.plural, name(object)) {
                return Ok(());
            }
            let wanted: Vec<Rule> = list(object, &["rules"]).iter().map(Rule::of).collect();
            rules.exceeds(user, scene.namespace, wanted.iter())
        }
        _ => {
            if old.is_some_and(|o| o["subjects"] == object["subjects"] && o["roleRef"] == object["roleRef"]) {
                return Ok(());
            }
            let cluster = text(object, &["roleRef", "kind"]) == "ClusterRole";
            let role = text(object, &["roleRef", "name"]);
            let plural = if cluster { "clusterroles" } else { "roles" };
            if may("bind", plural, role) {
                return Ok(());
            }
            rules.exceeds(user, scene.namespace, rules.role(cluster, scene.namespace, role))
        }
    };
    match exceeded {
        None => Ok(()),
        Some(what) => {
            let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
            let why = format!(
                "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{what}",
                user.name,
                groups.join(" ")
            );
            Err(refused(scene, object, why))
        }
    }
}
