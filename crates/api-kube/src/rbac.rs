//! Role-based access: the rules of roles, bound to users, groups and service accounts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tripod_engine::{Manager, Watch};
use tripod_schema::selector::LabelSelector;
use tripod_schema::value::{list, text};
use tripod_store::{KindId, State, WatchFilter};

use crate::authn::User;
use crate::authz::Attributes;

const GROUP: &str = "rbac.authorization.k8s.io";
const KINDS: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

/// What a role allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) paths: Vec<String>,
}

impl Rule {
    /// A rule of a role.
    pub(crate) fn of(value: &Value) -> Self {
        let words = |name: &str| {
            let all = list(value, &[name]).iter();
            all.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: words("verbs"),
            groups: words("apiGroups"),
            resources: words("resources"),
            names: words("resourceNames"),
            paths: words("nonResourceURLs"),
        }
    }

    /// Whether it allows what is asked.
    pub(crate) fn allows(&self, asked: &Attributes) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|w| w == "*" || w == word);
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.path.is_empty() {
            return self.paths.iter().any(|p| {
                p == "*"
                    || *p == asked.path
                    || p.strip_suffix('*')
                        .is_some_and(|prefix| asked.path.starts_with(prefix))
            });
        }
        let sub = asked.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        has(&self.groups, &asked.group)
            && (has(&self.resources, &asked.resource) || sub.is_some_and(|sub| self.resources.contains(&sub)))
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }
}

/// Who a binding is for.
#[derive(Debug, Clone)]
struct Binding {
    subjects: Vec<(String, String, String)>,
    cluster_role: bool,
    role: String,
}

impl Binding {
    fn of(value: &Value) -> Self {
        let subject = |s: &Value| {
            let word = |name: &str| text(s, &[name]).to_owned();
            (word("kind"), word("namespace"), word("name"))
        };
        Self {
            subjects: list(value, &["subjects"]).iter().map(subject).collect(),
            cluster_role: text(value, &["roleRef", "kind"]) == "ClusterRole",
            role: text(value, &["roleRef", "name"]).to_owned(),
        }
    }

    fn is_for(&self, user: &User, namespace: &str) -> bool {
        self.subjects.iter().any(|(kind, ns, name)| match kind.as_str() {
            "User" => user.name == *name,
            "Group" => user.groups.iter().any(|g| g == name),
            "ServiceAccount" => {
                let ns = if ns.is_empty() { namespace } else { ns };
                user.name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    .is_some_and(|(n, a)| n == ns && a == name)
            }
            _ => false,
        })
    }
}

/// All roles and bindings, read once per change.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    cluster_roles: HashMap<String, Vec<Rule>>,
    roles: HashMap<(String, String), Vec<Rule>>,
    cluster_bindings: Vec<Binding>,
    bindings: HashMap<String, Vec<Binding>>,
}

impl Rules {
    fn read(state: &State) -> Self {
        let all = |plural: &str| -> Vec<(String, String, Value)> {
            let kind = KindId::from(format!("{plural}.{GROUP}").as_str());
            let objects = state.iter(&kind, None);
            objects
                .filter_map(|o| {
                    Some((
                        o.key.namespace.to_string(),
                        o.key.name.to_string(),
                        serde_json::from_slice(&o.bytes).ok()?,
                    ))
                })
                .collect()
        };
        let rules = |role: &Value| -> Vec<Rule> { list(role, &["rules"]).iter().map(Rule::of).collect() };
        let cluster = all("clusterroles");
        let mut read = Self::default();
        for (_, name, role) in &cluster {
            let mut own = rules(role);
            for selector in list(role, &["aggregationRule", "clusterRoleSelectors"]) {
                let selector = LabelSelector::of(selector);
                let parts = cluster
                    .iter()
                    .filter(|(_, n, r)| n != name && selector.accepts(r));
                own.extend(parts.flat_map(|(_, _, r)| rules(r)));
            }
            read.cluster_roles.insert(name.clone(), own);
        }
        for (namespace, name, role) in all("roles") {
            read.roles.insert((namespace, name), rules(&role));
        }
        read.cluster_bindings = all("clusterrolebindings")
            .iter()
            .map(|(_, _, b)| Binding::of(b))
            .collect();
        for (namespace, _, binding) in all("rolebindings") {
            read.bindings
                .entry(namespace)
                .or_default()
                .push(Binding::of(&binding));
        }
        read
    }

    /// The rules that a user has in a namespace (or, with an empty one, in the whole cluster).
    pub(crate) fn of_user<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Rule> {
        let cluster = self
            .cluster_bindings
            .iter()
            .filter(|b| b.is_for(user, ""))
            .flat_map(|b| self.cluster_roles.get(&b.role).into_iter().flatten());
        let own = self.bindings.get(namespace).into_iter().flatten();
        let own = own
            .filter(move |b| b.is_for(user, namespace))
            .flat_map(move |b| self.role(b.cluster_role, namespace, &b.role));
        cluster.chain(own)
    }

    /// The rules of a role.
    pub(crate) fn role(&self, cluster: bool, namespace: &str, name: &str) -> impl Iterator<Item = &Rule> {
        let found = if cluster {
            self.cluster_roles.get(name)
        } else {
            self.roles.get(&(namespace.to_owned(), name.to_owned()))
        };
        found.into_iter().flatten()
    }

    /// Whether a user may.
    pub(crate) fn allow(&self, user: &User, asked: &Attributes) -> bool {
        self.of_user(user, &asked.namespace)
            .any(|rule| rule.allows(asked))
    }

    /// The first part of some rules that a user does not have itself.
    pub(crate) fn exceeds<'a>(
        &self,
        user: &User,
        namespace: &str,
        wanted: impl Iterator<Item = &'a Rule>,
    ) -> Option<String> {
        let own: Vec<&Rule> = self.of_user(user, namespace).collect();
        let covered = |asked: &Attributes| own.iter().any(|rule| rule.allows(asked));
        for rule in wanted {
            for verb in &rule.verbs {
                let ask = |f: &dyn Fn(&mut Attributes)| {
                    let mut asked = Attributes {
                        verb: verb.clone(),
                        namespace: namespace.to_owned(),
                        ..Attributes::default()
                    };
                    f(&mut asked);
                    asked
                };
                for path in &rule.paths {
                    if !covered(&ask(&|a| a.path.clone_from(path))) {
                        return Some(format!("{{NonResourceURLs:[{path:?}], Verbs:[{verb:?}]}}"));
                    }
                }
                for group in &rule.groups {
                    for resource in &rule.resources {
                        let all = [String::new()];
                        let names = if rule.names.is_empty() {
                            &all[..]
                        } else {
                            &rule.names[..]
                        };
                        for name in names {
                            let asked = ask(&|a| {
                                a.group.clone_from(group);
                                a.resource.clone_from(resource);
                                a.name.clone_from(name);
                            });
                            if !covered(&asked) {
                                return Some(format!(
                                    "{{APIGroups:[{group:?}], Resources:[{resource:?}], Verbs:[{verb:?}]}}"
                                ));
                            }
                        }
                    }
                }
            }
        }
        None
    }
}

/// The rules as they are now.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Option<(String, Watch, Arc<Rules>)>>);

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

impl Cache {
    /// The rules, read anew when roles or bindings changed.
    pub(crate) fn rules(&self, manager: &Manager) -> Arc<Rules> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cluster, watch, rules)) = &mut *cached
            && cluster == manager.cluster_id()
            && watch.ready().is_ok_and(|events| events.is_empty())
        {
            return rules.clone();
        }
        let state = manager.state();
        let rules = Arc::new(Rules::read(&state));
        let kinds = KINDS.map(|k| KindId::from(format!("{k}.{GROUP}").as_str()));
        *cached = match manager.watch(WatchFilter::kinds(kinds), state.revision()) {
            Ok(watch) => Some((manager.cluster_id().to_owned(), watch, rules.clone())),
            Err(_) => None,
        };
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_match() {
        let rule = Rule::of(
            &json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"], "resourceNames": ["a"]}),
        );
        assert!(rule.allows(&asked("get", "", "pods", "a")));
        assert!(!rule.allows(&asked("get", "", "pods", "b")));
        assert!(!rule.allows(&asked("delete", "", "pods", "a")));
        assert!(!rule.allows(&asked("get", "apps", "pods", "a")));
        assert!(!rule.allows(&asked("get", "", "pods/log", "a")));
        assert!(rule.allows(&asked("get", "", "deployments/scale", "a")));
        let rule = Rule::of(&json!({"verbs": ["*"], "nonResourceURLs": ["/metrics", "/logs/*"]}));
        let path = |p: &str| Attributes {
            verb: "get".into(),
            path: p.into(),
            ..Attributes::default()
        };
        assert!(
            rule.allows(&path("/metrics"))
                && rule.allows(&path("/logs/x"))
                && !rule.allows(&path("/version"))
        );
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        let user = User {
            name: "u".into(),
            ..User::default()
        };
        let mut rules = Rules::default();
        rules.cluster_roles.insert(
            "r".into(),
            vec![Rule::of(
                &json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]}),
            )],
        );
        rules.bindings.insert("ns".into(), vec![Binding::of(&json!({"subjects": [{"kind": "User", "name": "u"}], "roleRef": {"kind": "ClusterRole", "name": "r"}}))]);
        let fine = Rule::of(&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        let more = Rule::of(&json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}));
        assert_eq!(rules.exceeds(&user, "ns", [&fine].into_iter()), None);
        assert!(
            rules
                .exceeds(&user, "ns", [&more].into_iter())
                .unwrap()
                .contains("delete")
        );
        assert!(rules.exceeds(&user, "other", [&fine].into_iter()).is_some());
    }
}
