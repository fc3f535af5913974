//! Nodes: list, change, remove.

use tripod_model::node::{Node, NodeRole, NodeState, NodeSwarmSpec};
use tripod_model::{Error, ErrorKind, Result, Time};

use super::filters::Filters;
use super::find::only;
use crate::db::{NODE_IDS, Snapshot, to_error};
use crate::manager::Manager;

/// How often a change is tried anew when the node moved under it.
const ATTEMPTS: usize = 8;

impl Manager {
    /// A node by Swarm identifier, host name, or beginning of the identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`], or [`tripod_model::ErrorKind::Invalid`] when several are meant.
    pub fn node(&self, id: &str) -> Result<Node> {
        find_node(&self.db().snapshot(), id)
    }

    /// Nodes, by name. Filters: `id`, `name`, `label` (of the engine), `node.label`, `role`, `membership`.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for other filters and values.
    pub fn nodes(&self, filters: &Filters) -> Result<Vec<Node>> {
        filters.known(&["id", "name", "label", "node.label", "role", "membership"])?;
        for role in filters.values("role") {
            if !["manager", "worker"].contains(&role.as_str()) {
                return Err(Error::invalid(format_args!("Invalid role filter: '{role}'")));
            }
        }
        for membership in filters.values("membership") {
            if !["accepted", "pending"].contains(&membership.as_str()) {
                return Err(Error::invalid(format_args!(
                    "Invalid membership filter: '{membership}'"
                )));
            }
        }
        let mut nodes = self.db().snapshot().list::<Node>(None)?;
        nodes.retain(|node| {
            let role = match node.spec.swarm.role {
                NodeRole::Manager => "manager",
                NodeRole::Worker => "worker",
            };
            !node.is_foreign()
                && filters.prefix("id", &node.spec.swarm.node_id)
                && filters.any("name", |n| hostname(node).starts_with(n))
                && filters.labels("label", &node.status.description.engine_labels)
                && filters.labels("node.label", &node.spec.swarm.labels)
                && filters.any("role", |r| r == role)
                && filters.any("membership", |m| m == "accepted")
        });
        Ok(nodes)
    }

    /// Changes what the user wants of a node. Its identifier stays.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::OutOfSequence`] when its wishes have changed since `version`;
    /// [`tripod_model::ErrorKind::Invalid`] for the demotion of the last manager.
    pub async fn node_update(&self, id: &str, version: u64, spec: NodeSwarmSpec) -> Result<Node> {
        self.again_when_it_moved(|state| {
            let node = self.changed_node(&state, id, version, spec.clone());
            async move { self.db().update(&node?).await }
        })
        .await
    }

    /// A node reports its state while somebody changes it: what was asked is judged by the newest state and tried anew. A
    /// conflict between users shows in the judgement, not in the revision.
    async fn again_when_it_moved<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: impl Fn(Snapshot) -> F,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            match attempt(self.db().snapshot()).await {
                Err(e) if e.kind == ErrorKind::OutOfSequence => {}
                other => return other,
            }
            // The state that the attempt lost to may not have come here yet.
            self.db().cluster().read_index().await.map_err(to_error)?;
        }
        attempt(self.db().snapshot()).await
    }

    fn changed_node(&self, state: &Snapshot, id: &str, version: u64, spec: NodeSwarmSpec) -> Result<Node> {
        let mut node = find_node(state, id)?;
        if version <= node.spec.swarm.changed_after || version > node.metadata.revision() {
            return Err(Error::out_of_sequence("update out of sequence"));
        }
        if node.spec.swarm.role == NodeRole::Manager && spec.role == NodeRole::Worker {
            let metrics = self.db().cluster().metrics();
            may_demote(&state.list::<Node>(None)?, &node, |id| {
                metrics.voters.contains_key(&id)
            })?;
        }
        node.spec.swarm = NodeSwarmSpec {
            node_id: node.spec.swarm.node_id.clone(),
            changed_after: node.metadata.revision(),
            ..spec
        };
        node.metadata.generation += 1;
        node.status.updated_at = Some(Time::now());
        Ok(node)
    }

    /// Removes a node that is down, or any worker with `force`.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for managers and, unless `force`, for nodes that are not down.
    pub async fn node_remove(&self, id: &str, force: bool) -> Result<()> {
        self.again_when_it_moved(|state| {
            let node = removable_node(&state, id, force);
            async move { self.db().delete(&node?).await }
        })
        .await
    }
}

fn removable_node(state: &Snapshot, id: &str, force: bool) -> Result<Node> {
    let node = find_node(state, id)?;
    let id = &node.spec.swarm.node_id;
    if node.spec.swarm.role == NodeRole::Manager {
        let text = format!(
            "rpc error: code = FailedPrecondition desc = node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker \
             before removal"
        );
        return Err(Error::invalid(text));
    }
    if !force && node.status.state == NodeState::Ready {
        return Err(Error::invalid(format_args!(
            "rpc error: code = FailedPrecondition desc = node {id} is not down and can't be removed"
        )));
    }
    Ok(node)
}

/// Refuses a demotion that would leave no manager, or too few that answer. Only those count that vote.
fn may_demote(nodes: &[Node], node: &Node, votes: impl Fn(u64) -> bool) -> Result<()> {
    let voter = |n: &Node| n.status.manager.as_ref().is_some_and(|m| votes(m.raft_id));
    let stays = |n: &&Node| n.spec.swarm.node_id != node.spec.swarm.node_id && voter(n);
    if !nodes.iter().any(|n| stays(&n)) {
        return Err(Error::invalid(
            "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
        ));
    }
    let rest = nodes
        .iter()
        .filter(stays)
        .filter_map(|n| n.status.manager.as_ref());
    let (answer, silent): (Vec<_>, Vec<_>) = rest.partition(|m| m.reachable);
    if node.status.manager.is_some() && answer.len() <= silent.len() {
        return Err(Error::invalid(
            "rpc error: code = FailedPrecondition desc = can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

/// The name by which people know a node.
pub(crate) fn hostname(node: &Node) -> &str {
    match node.status.description.hostname.as_str() {
        "" => &node.metadata.name,
        name => name,
    }
}

pub(crate) fn find_node(state: &Snapshot, word: &str) -> Result<Node> {
    if let Some(node) = state.by_unique(NODE_IDS, word)? {
        return Ok(node);
    }
    let nodes = state.list::<Node>(None)?;
    let named = |n: &&Node| hostname(n) == word || (!word.is_empty() && n.spec.swarm.name == word);
    let found: Vec<Node> = nodes.iter().filter(named).cloned().collect();
    if !found.is_empty() {
        return only(found, "node", word);
    }
    let begun = |n: &&Node| !word.is_empty() && n.spec.swarm.node_id.starts_with(word);
    only(nodes.iter().filter(begun).cloned().collect(), "node", word)
}
