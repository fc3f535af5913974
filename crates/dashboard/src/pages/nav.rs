//! The side bar.

use crate::view::Ui;

/// A part of the side bar.
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) items: Vec<Item>,
}

/// A link of the side bar.
pub(crate) struct Item {
    pub(crate) label: String,
    pub(crate) href: String,
    pub(crate) here: bool,
}

/// Marks texts that are translated when they are shown.
const fn tr(english: &'static str) -> &'static str {
    english
}

type Entry = (&'static str, &'static str);

const GROUPS: &[(&str, &[Entry])] = &[
    (
        tr("Cluster"),
        &[
            ("", tr("Overview")),
            ("nodes", tr("Nodes")),
            ("namespaces", tr("Namespaces")),
            ("events", tr("Events")),
        ],
    ),
    (
        tr("Workloads"),
        &[
            ("workloads", tr("Workloads")),
            ("deployments", tr("Deployments")),
            ("statefulsets", tr("Stateful sets")),
            ("daemonsets", tr("Daemon sets")),
            ("jobs", tr("Jobs")),
            ("cronjobs", tr("Cron jobs")),
            ("swarm-services", tr("Swarm services")),
            ("ecs-services", tr("ECS services")),
            ("pods", tr("Pods")),
        ],
    ),
    (
        tr("Network"),
        &[
            ("services", tr("Services")),
            ("networks", tr("Networks")),
            ("ingresses", tr("Ingresses")),
            ("networkpolicies", tr("Network policies")),
        ],
    ),
    (
        tr("Configuration"),
        &[
            ("config", tr("Config")),
            ("configmaps", tr("Config maps")),
            ("secrets", tr("Secrets")),
        ],
    ),
    (
        tr("Storage"),
        &[
            ("storage", tr("Storage")),
            ("persistentvolumeclaims", tr("Volume claims")),
            ("persistentvolumes", tr("Volumes")),
        ],
    ),
    (
        tr("More"),
        &[
            ("ecs-clusters", tr("ECS clusters")),
            ("task-definitions", tr("Task definitions")),
            ("objects", tr("All kinds")),
            ("new", tr("Create from YAML")),
        ],
    ),
];

/// The side bar for a page.
pub(crate) fn groups(ui: &Ui) -> Vec<Group> {
    let item = |(slug, label): &Entry| Item {
        label: ui.t(label).to_owned(),
        href: if slug.is_empty() {
            ui.list_url(&[])
        } else {
            ui.list_url(&[slug])
        },
        here: ui.here == *slug,
    };
    let group = |(title, items): &(&str, &[Entry])| Group {
        title: ui.t(title).to_owned(),
        items: items.iter().map(item).collect(),
    };
    GROUPS.iter().map(group).collect()
}
