//! Replicated services: numbered slots.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use tripod_model::pod::DesiredState;
use tripod_model::swarm::TaskState;

use super::is_filled;
use crate::enforce::shut_place;
use crate::planner::Planner;

/// Fills slots up to `replicas`, or takes away those that are too many; forgets slots that are no more.
pub(super) fn reconcile(p: &mut Planner<'_, '_>, replicas: u64) {
    let mut filled: BTreeSet<u64> = BTreeSet::new();
    for (place, indices) in &p.places {
        if place.0 != 0 && is_filled(p, indices) {
            filled.insert(place.0);
        }
    }
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    if filled.len() > wanted {
        for slot in surplus(p, &filled, wanted) {
            filled.remove(&slot);
        }
    } else {
        let mut slot = 0;
        for _ in filled.len()..wanted {
            slot += 1;
            while filled.contains(&slot) {
                slot += 1;
            }
            filled.insert(slot);
            p.create_after_others(&(slot, String::new()), None);
        }
    }
    let dead: Vec<Vec<usize>> = p
        .places
        .iter()
        .filter(|(k, _)| !filled.contains(&k.0))
        .map(|(_, v)| v.clone())
        .collect();
    for indices in dead {
        shut_place(p, &indices, DesiredState::Remove);
    }
}

/// The slots to take away: those that do not run first, then those on the nodes that have most of this service,
/// then the highest.
fn surplus(p: &Planner<'_, '_>, filled: &BTreeSet<u64>, keep: usize) -> Vec<u64> {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    let mut slots: Vec<(bool, usize, u64)> = Vec::with_capacity(filled.len());
    // Slots that run count first on their node, so that the rank of a running slot does not depend on broken ones.
    let mut ordered: Vec<(bool, u64, &str)> = filled
        .iter()
        .map(|&slot| {
            let indices = p
                .places
                .get(&(slot, String::new()))
                .map_or(&[][..], Vec::as_slice);
            let runs = |&i: &usize| p.wanted(i) && p.pod(i).state.observed == TaskState::Running;
            let best = indices.iter().copied().find(|i| runs(i));
            let node = best
                .or_else(|| indices.last().copied())
                .map_or("", |i| &p.pod(i).spec.node_name);
            (best.is_some(), slot, node)
        })
        .collect();
    ordered.sort_by_key(|&(runs, slot, _)| (Reverse(runs), slot));
    for (runs, slot, node) in ordered {
        let rank = per_node.entry(node).or_default();
        slots.push((!runs, *rank, slot));
        *rank += 1;
    }
    slots.sort_unstable();
    slots
        .split_off(keep)
        .into_iter()
        .map(|(_, _, slot)| slot)
        .collect()
}
