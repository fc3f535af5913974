//! Global services: one task on each node that satisfies the constraints.

use std::collections::BTreeMap;

use tripod_model::pod::DesiredState;

use super::is_filled;
use crate::constraint;
use crate::enforce::{keeps_global, shut_place, takes_tasks};
use crate::planner::Planner;
use crate::task::Place;

/// Makes the tasks of nodes that have none, ends those of nodes that shall have none.
pub(super) fn reconcile(p: &mut Planner<'_, '_>) {
    let view = p.d.view;
    let mut nodes: BTreeMap<Place, bool> = BTreeMap::new();
    for node in view.nodes() {
        if keeps_global(node) && constraint::satisfied(&p.service.spec.task_template, node) {
            nodes.insert((0, node.spec.swarm.node_id.clone()), takes_tasks(node));
        }
    }
    let places: Vec<(Place, Vec<usize>)> = p.places.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    for (place, indices) in &places {
        if nodes.contains_key(place) {
            continue;
        }
        let known = view.node_by_id(&place.1).is_some();
        let desired = if known {
            DesiredState::Shutdown
        } else {
            DesiredState::Remove
        };
        shut_place(p, indices, desired);
    }
    for (place, takes) in nodes {
        let filled = p.places.get(&place).is_some_and(|indices| is_filled(p, indices));
        if takes && !filled {
            p.create_after_others(&place, None);
        }
    }
}
