//! The rules that hold at all times, and those that hold when all is quiet again.
//!
//! 1. A term has one leader.
//! 2. All managers apply the same entries to the same effect.
//! 3. A write that was acknowledged is there for good.
//! 4. The state of a task never goes backwards.
//! 5. No address of a network is given to two at a time.
//! 6. Two containers of one slot do not run on nodes that are both in touch with the leader, for longer than a session
//!    needs to say so.
//! 7. When faults and users have been quiet for a while: somebody leads, all managers agree, every replica runs, and
//!    nodes run exactly what they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tripod_model::pod::DesiredState;
use tripod_model::swarm::{ServiceMode, TaskState};
use tripod_plan::View;

use crate::manager::{Applied, Manager, node_name};
use crate::node::Node;
use crate::users::marker_key;

/// Milliseconds for which two containers of a slot may run on nodes that are in touch.
pub const DOUBLE: u64 = 5_000;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    leaders: BTreeMap<u64, usize>,
    applied: Vec<u64>,
    pub(crate) acknowledged: BTreeSet<String>,
    doubles: BTreeMap<(String, u64), u64>,
}

type Verdict = Result<(), String>;

impl Checks {
    pub(crate) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// Rule 1.
    pub(crate) fn leads(&mut self, term: u64, manager: usize) -> Verdict {
        let known = *self.leaders.entry(term).or_insert(manager);
        if known == manager {
            return Ok(());
        }
        Err(format!("managers {known} and {manager} both lead term {term}"))
    }

    /// Rule 2, and whether the entry was new to all.
    pub(crate) fn applies(&mut self, manager: usize, done: &Applied) -> Result<bool, String> {
        let mut digest = DefaultHasher::new();
        (done.revision, done.accepted).hash(&mut digest);
        for event in &done.events {
            (event.revision, &event.object.key, &event.object.bytes).hash(&mut digest);
        }
        let digest = digest.finish();
        match self.applied.get(done.index - 1) {
            None => {
                self.applied.push(digest);
                Ok(true)
            }
            Some(known) if *known == digest => Ok(false),
            Some(_) => Err(format!(
                "manager {manager} applies another entry {} than others did",
                done.index
            )),
        }
    }

    /// Rule 4, of what was just applied.
    pub(crate) fn forward(&self, done: &Applied) -> Verdict {
        for event in &done.events {
            let Some(before) = event.previous.as_ref().filter(|b| b.uid == event.object.uid) else {
                continue;
            };
            if event.object.key.kind.as_str() != "pods" {
                continue;
            }
            let observed = |bytes: &[u8]| {
                let pod: Option<tripod_model::pod::Pod> = tripod_model::object::decode(bytes).ok();
                pod.map(|p| (p.state.observed, p.state.desired))
            };
            let (old, new) = (observed(&before.bytes), observed(&event.object.bytes));
            if let (Some(old), Some(new)) = (old, new)
                && (new.0 < old.0 || new.1 < old.1)
            {
                return Err(format!("{} goes from {old:?} back to {new:?}", event.object.key));
            }
        }
        Ok(())
    }

    /// Rule 5.
    pub(crate) fn addresses(&self, view: &View) -> Verdict {
        let mut held: BTreeMap<std::net::IpAddr, &str> = BTreeMap::new();
        let mut take = |address: std::net::IpAddr, who| match held.insert(address, who) {
            None => Ok(()),
            Some(other) => Err(format!("{who} and {other} both have {address}")),
        };
        for pod in view.pods().filter(|p| !p.state.observed.is_final()) {
            for net in pod.extension.networks.iter().filter_map(|n| n.address) {
                take(net.addr(), &pod.metadata.name)?;
            }
        }
        for service in view.services() {
            for vip in service.status.endpoint.iter().flat_map(|e| &e.virtual_ips) {
                take(vip.ip(), &service.metadata.name)?;
            }
        }
        Ok(())
    }

    /// Rule 6. `touch` tells since when a node is in touch with the leader.
    pub(crate) fn slots(&mut self, now: u64, nodes: &[Node], touch: &[Option<u64>]) -> Verdict {
        let mut running: BTreeMap<(String, u64), Vec<usize>> = BTreeMap::new();
        for (i, node) in nodes.iter().enumerate() {
            let in_touch = touch[i].is_some_and(|since| since + DOUBLE <= now);
            for container in node.containers.values().filter(|c| c.runs() && in_touch) {
                let slot = (container.service.clone(), container.slot);
                running.entry(slot).or_default().push(i);
            }
        }
        running.retain(|_, on| on.len() > 1);
        self.doubles.retain(|slot, _| running.contains_key(slot));
        for (slot, on) in running {
            let since = *self.doubles.entry(slot.clone()).or_insert(now);
            if since + DOUBLE <= now {
                return Err(format!("slot {} of {} runs on nodes {on:?}", slot.1, slot.0));
            }
        }
        Ok(())
    }

    /// Rules 3 and 7.
    pub(crate) fn quiet(&self, managers: &[Manager], nodes: &[Node]) -> Verdict {
        let Some(leader) = managers.iter().find(|m| m.led) else {
            return Err("nobody leads".into());
        };
        for (i, manager) in managers.iter().enumerate() {
            if manager.state.revision() != leader.state.revision() {
                return Err(format!("manager {i} is behind"));
            }
            let lost = self
                .acknowledged
                .iter()
                .find(|n| manager.state.get(&marker_key(n)).is_none());
            if let Some(lost) = lost {
                return Err(format!(
                    "{lost} was acknowledged, and manager {i} does not have it"
                ));
            }
        }
        for service in leader.view.services() {
            let ServiceMode::Replicated { replicas } = service.spec.mode else {
                continue;
            };
            let id = &service.metadata.name;
            let run = leader.view.pods_of_service(id).filter(|p| {
                p.state.desired == DesiredState::Running && p.state.observed == TaskState::Running
            });
            let run = run.count() as u64;
            if run != replicas {
                let of = leader.view.pods_of_service(id);
                let states: Vec<String> = of
                    .map(|p| {
                        let (s, on) = (&p.state, &p.spec.node_name);
                        format!(
                            "{} on {on:?} {:?}->{:?} {}",
                            p.metadata.name, s.observed, s.desired, s.error
                        )
                    })
                    .collect();
                return Err(format!("{run} of {replicas} replicas of {id} run: {states:#?}"));
            }
        }
        for (i, node) in nodes.iter().enumerate() {
            let told: BTreeSet<&str> = leader
                .view
                .pods_of_node(&node_name(i))
                .filter(|p| p.state.desired == DesiredState::Running && !p.state.observed.is_final())
                .map(|p| p.metadata.uid.as_str())
                .collect();
            let runs: BTreeSet<&str> = node
                .containers
                .iter()
                .filter(|(_, c)| c.runs())
                .map(|(uid, _)| uid.as_str())
                .collect();
            if told != runs {
                return Err(format!("node {i} is told to run {told:?} and runs {runs:?}"));
            }
        }
        Ok(())
    }
}
