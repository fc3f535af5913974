//! What a manager answers to other nodes. Questions about the cluster go to the leader.

use std::time::Duration;

use tripod_model::node::{ManagerStatus, Node, NodeRole, NodeSpec, NodeState, NodeStatus, NodeSwarmSpec};
use tripod_model::swarm::SwarmCluster;
use tripod_model::{Error, ErrorKind, Result, Time};

use crate::engine::Engine;
use crate::link::message::{Answer, Asker, Call, Issued, Joined, Joining, NewManager, Purpose};
use crate::link::mux::Stream;
use crate::link::{Caller, frame};
use crate::manager::Manager;
use crate::new_id;
use crate::swarm::cluster::{authority, chain, meta, roots, safe_name};

/// How long a stream may stay silent before it says what it is for.
const PURPOSE: Duration = Duration::from_secs(10);
const WRONG_TOKEN: &str =
    "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster";

/// Takes a stream that somebody opened to this node.
pub(crate) async fn attend(engine: Engine, caller: Caller, mut stream: Stream) {
    let max = match caller.holder {
        Some(_) => frame::MAX,
        None => frame::MAX_STRANGER,
    };
    let purpose = tokio::time::timeout(PURPOSE, frame::receive::<Purpose>(&mut stream, max)).await;
    let Ok(Ok(purpose)) = purpose else {
        return;
    };
    if let Some(holder) = &caller.holder
        && holder.cluster_id != engine.cluster_id()
    {
        tracing::warn!(from = %caller.address, "a node of another cluster calls");
        return;
    }
    match purpose {
        Purpose::Call(call) => {
            let answer = engine.answer(caller.asker(), *call).await;
            // Who asked may be gone.
            let _ = frame::send(&mut stream, &answer).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        }
        Purpose::Raft if caller.asker().role == NodeRole::Manager => {
            if let Err(error) = crate::link::answer_raft(engine.link(), &mut stream).await {
                tracing::debug!(%error, "a request of the group was not answered");
            }
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        }
        Purpose::Session(hello) if caller.holder.is_some() => {
            super::host::host(engine, caller, *hello, stream).await;
        }
        Purpose::Relay { node_id } if caller.asker().role == NodeRole::Manager => {
            crate::door::serve::relay(&engine, &node_id, stream).await;
        }
        Purpose::Content(wanted) if caller.holder.is_some() => {
            engine.serve_content(caller.asker(), *wanted, stream).await;
        }
        purpose => tracing::debug!(?purpose, from = %caller.address, "refused"),
    }
}

impl Engine {
    /// Answers a question of another node, or has the leader answer it.
    pub(crate) async fn answer(&self, asker: Asker, call: Call) -> Result<Answer> {
        let (asker, call) = match call {
            Call::Forwarded { from, call }
                if asker.role == NodeRole::Manager && !asker.node_id.is_empty() =>
            {
                (from, *call)
            }
            Call::Forwarded { .. } => return Err(denied()),
            call => (asker, call),
        };
        if let Call::Root = call {
            return self.root().map(Answer::Root);
        }
        if let (Call::Instance, NodeRole::Manager, false) = (&call, asker.role, asker.node_id.is_empty()) {
            return Ok(Answer::Instance(self.link().instance()));
        }
        let manager = self.manager()?;
        if !manager.leads() {
            let leader = manager.leader_address().ok_or_else(no_leader)?;
            let call = Call::Forwarded {
                from: asker,
                call: Box::new(call),
            };
            return self.link().call(&leader, call).await;
        }
        match call {
            Call::Join(joining) => {
                let joined = manager.admit(&asker, *joining).await?;
                Ok(Answer::Joined(Box::new(joined)))
            }
            _ if asker.node_id.is_empty() => Err(denied()),
            Call::Renew { csr } => manager.renew(&asker, &csr).map(Answer::Certificate),
            Call::AddManager(new) => manager.add_manager(&asker, new).await.map(|()| Answer::Done),
            Call::Leave => manager.part(&asker.node_id).await.map(|()| Answer::Done),
            Call::Network { reference } => match manager.network(&reference) {
                Ok(network) => Ok(Answer::Network(Some(Box::new(network.spec)))),
                Err(e) if e.kind == ErrorKind::NotFound => Ok(Answer::Network(None)),
                Err(e) => Err(e),
            },
            Call::Image { reference } => {
                let found = manager.find_image(&asker, &reference).await?;
                Ok(Answer::Image(found.map(Box::new)))
            }
            Call::Root | Call::Instance | Call::Forwarded { .. } => Err(denied()),
        }
    }
}

pub(crate) fn denied() -> Error {
    Error::forbidden("rpc error: code = PermissionDenied desc = Permission denied: unauthorized peer")
}

/// In swarmkit's words.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. Make sure \
                         more than half of the managers are online.";

pub(crate) fn no_leader() -> Error {
    Error::unavailable(NO_LEADER)
}

/// The same with what was seen of it.
pub(crate) fn no_leader_because(why: &str) -> Error {
    Error::unavailable(format_args!("{NO_LEADER} ({why})"))
}

impl Manager {
    /// Takes a stranger in who shows a token.
    async fn admit(&self, asker: &Asker, joining: Joining) -> Result<Joined> {
        let cluster = self.swarm_inspect()?;
        let role = match &joining.token {
            token if same(token, &cluster.status.manager_token) => NodeRole::Manager,
            token if same(token, &cluster.status.worker_token) => NodeRole::Worker,
            _ => return Err(Error::invalid(WRONG_TOKEN)),
        };
        let address = match joining.address.as_str() {
            "" => asker.address.to_string(),
            given => given.to_owned(),
        };
        let node_id = new_id();
        let certificate = issue(&cluster, &joining.csr, &node_id, role)?;
        let now = Time::now();
        let mut node = Node {
            metadata: meta(safe_name(&joining.description.hostname), now),
            spec: NodeSpec {
                swarm: NodeSwarmSpec {
                    node_id: node_id.clone(),
                    role,
                    availability: joining.availability,
                    ..NodeSwarmSpec::default()
                },
                ..NodeSpec::default()
            },
            status: NodeStatus {
                addr: address.clone(),
                description: joining.description,
                since: Some(now),
                ..NodeStatus::default()
            },
        };
        let created = match self.db().create(&node).await {
            // The name is taken by a namesake, or by what this host was before.
            Err(e) if e.kind == ErrorKind::AlreadyExists => {
                node.metadata.name = format!("{}-{}", node.metadata.name, &node_id[..5]);
                self.db().create(&node).await?
            }
            created => created?,
        };
        tracing::info!(
            node = node_id,
            name = created.metadata.name,
            ?role,
            "a node joins"
        );
        Ok(Joined {
            cluster_id: cluster.metadata.name,
            node_id,
            node_name: created.metadata.name,
            address,
            certificate,
            managers: self.common.borrow().managers.clone(),
        })
    }

    /// A new certificate, of the role that the node is to have now.
    fn renew(&self, asker: &Asker, csr: &str) -> Result<Issued> {
        let node = self.node(&asker.node_id)?;
        let role = self.common.borrow().role(&node);
        issue(&self.swarm_inspect()?, csr, &asker.node_id, role)
    }

    /// Takes a manager into the group.
    async fn add_manager(&self, asker: &Asker, new: NewManager) -> Result<()> {
        let node = self.node(&asker.node_id)?;
        if asker.role != NodeRole::Manager || node.spec.swarm.role != NodeRole::Manager {
            return Err(denied());
        }
        // A manager that the others cannot reach would only cost them their majority.
        let call = self.link.call(&new.address, Call::Root);
        tokio::time::timeout(Duration::from_secs(5), call)
            .await
            .map_err(|_| Error::unavailable(format_args!("{} does not answer", new.address)))
            .and_then(|answered| answered)
            .map_err(|e| {
                Error::internal(format_args!(
                    "rpc error: code = Unavailable desc = could not connect to prospective new cluster member using its \
                     advertised address: {e}"
                ))
            })?;
        let before = node.status.manager.as_ref().map(|m| m.raft_id);
        self.enlarge(new.raft_id, &new.address, before).await?;
        self.change_node(&asker.node_id, |node| {
            node.status.manager = Some(ManagerStatus {
                leader: false,
                reachable: true,
                addr: new.address.clone(),
                raft_id: new.raft_id,
            });
        })
        .await
    }

    /// A node leaves in an orderly way.
    pub(crate) async fn part(&self, node_id: &str) -> Result<()> {
        let node = self.node(node_id)?;
        let raft_id = node.status.manager.as_ref().map(|manager| manager.raft_id);
        // The leader itself can write nothing once it has left the group.
        let itself = node.spec.swarm.node_id == self.node_id();
        if let (Some(raft_id), false) = (raft_id, itself) {
            self.diminish(raft_id).await?;
        }
        let parted = self.change_node(node_id, |node| {
            node.status.state = NodeState::Down;
            node.status.message = "node left the swarm".into();
            node.status.since = Some(Time::now());
            if let Some(manager) = &mut node.status.manager {
                (manager.leader, manager.reachable) = (false, false);
            }
        });
        parted.await?;
        match raft_id {
            Some(raft_id) if itself => self.diminish(raft_id).await,
            _ => Ok(()),
        }
    }
}

fn issue(cluster: &SwarmCluster, csr: &str, node_id: &str, role: NodeRole) -> Result<Issued> {
    let valid = Duration::from_nanos(cluster.spec.node_cert_expiry.unsigned_abs());
    let cert = authority(cluster).sign_request(csr, node_id, role, &cluster.metadata.name, valid)?;
    Ok(Issued {
        role,
        chain: chain(&cert, cluster),
        roots: roots(cluster),
        unlock_key: match role {
            NodeRole::Manager => cluster.status.unlock_key.clone(),
            NodeRole::Worker => String::new(),
        },
    })
}

/// Compares secrets in a time that does not depend on where they differ.
fn same(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && differ == 0
}
