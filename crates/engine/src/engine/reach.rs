//! How this node reaches the leader: sessions and questions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tripod_model::network::NetworkSpec;
use tripod_model::{Error, Result};

use super::Engine;
use crate::ca;
use crate::link::frame;
use crate::link::message::{Answer, Asker, Call, FromNode, Hello, Purpose};
use crate::link::mux::Stream;
use crate::members::client::{self, Local, Opened};
use crate::members::{LeaderSession, no_leader};
use crate::swarm::cluster::host_of;

/// How long a manager may take to answer before the next one is asked too.
const STAGGER: Duration = Duration::from_millis(800);

impl Engine {
    /// Opens this node's session with the leader, wherever it is.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when no leader answers: to be tried again after a while.
    pub async fn open_session(&self) -> Result<Arc<dyn LeaderSession>> {
        self.0.session.send_replace(false);
        let hello = self.hello()?;
        if let Ok(manager) = self.manager()
            && manager.leads()
        {
            let described = |node: &mut tripod_model::node::Node| {
                node.status.description = hello.description.clone();
                node.status.addr.clone_from(&hello.address);
                node.status.data_path_addr = hello.data_path_addr.filter(|a| a.to_string() != hello.address);
            };
            manager.change_node(manager.node_id(), described).await?;
            let session = manager.session(manager.node_id())?;
            self.0.session.send_replace(true);
            return Ok(Arc::new(Local::new(session)));
        }
        let mut tried = BTreeSet::from([self.standing().map_or_else(String::new, |s| s.advertise_addr)]);
        let mut addresses: VecDeque<String> = self.manager_addresses().into();
        let mut attempts = FuturesUnordered::new();
        let mut last = no_leader();
        let refused = |engine: &Self, error: Option<&Error>| {
            let error = error.filter(|e| e.kind == tripod_model::ErrorKind::AlreadyExists);
            let changed = engine.0.refused.send_if_modified(|known| {
                let changed = known.as_ref().map(|k| &k.message) != error.map(|e| &e.message);
                *known = error.cloned();
                changed
            });
            if let (true, Some(error)) = (changed, error) {
                tracing::error!(%error, "the cluster refuses this node");
            }
        };
        loop {
            while let Some(address) = addresses.pop_front() {
                if tried.insert(address.clone()) {
                    attempts.push(self.attempt(address, hello.clone()));
                    break;
                }
            }
            // A manager that is gone does not answer; others are asked before that is certain.
            let (address, outcome) = tokio::select! {
                Some(outcome) = attempts.next() => outcome,
                () = tokio::time::sleep(STAGGER), if !addresses.is_empty() => continue,
                else => break,
            };
            match outcome {
                Ok(Opened::Session(session)) => {
                    refused(self, None);
                    return Ok(session);
                }
                Ok(Opened::Elsewhere(leader)) => leader.into_iter().for_each(|l| addresses.push_front(l)),
                Err(e) => {
                    tracing::debug!(address, error = %e, "no session");
                    refused(self, Some(&e));
                    last = e;
                }
            }
        }
        Err(last)
    }

    async fn attempt(&self, address: String, hello: Hello) -> (String, Result<Opened>) {
        let opened = client::open(self, &address, hello).await;
        (address, opened)
    }

    /// Where the session over the network sends to.
    pub(crate) fn set_leader(&self, out: mpsc::UnboundedSender<FromNode>) {
        *self.0.to_leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(out);
    }

    /// Tells the leader again what this node is.
    pub(super) fn introduce(&self) {
        let to_leader = self
            .0
            .to_leader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let (Some(to_leader), Ok(hello)) = (to_leader, self.hello()) {
            // A session that is over is followed by another, which begins with the same.
            let _ = to_leader.send(FromNode::Describe(Box::new(hello.description)));
        }
    }

    fn hello(&self) -> Result<Hello> {
        let standing = self
            .standing()
            .ok_or_else(|| Error::unavailable(super::NOT_MEMBER))?;
        let mut description = self.0.options.description.clone();
        if let Some(roots) = self.0.paths.read_roots() {
            let trust = ca::trust(&roots)?;
            description.trust_root = trust.trust_root;
            description.issuer_subject = trust.issuer_subject;
            description.issuer_public_key = trust.issuer_public_key;
        }
        Ok(Hello {
            description,
            address: host_of(&standing.advertise_addr),
            data_path_addr: Some(standing.data_path_addr),
            instance: self.link().instance(),
        })
    }

    /// Where managers are, the leader first if it is known.
    pub(crate) fn manager_addresses(&self) -> Vec<String> {
        let manager = self.manager().ok();
        let leader = manager.as_ref().and_then(|m| m.leader_address());
        let known = manager.map_or_else(Vec::new, |m| m.common.borrow().managers.clone());
        let own = self.standing().map_or_else(String::new, |s| s.advertise_addr);
        let others = self
            .standing()
            .into_iter()
            .flat_map(|s| s.managers)
            .chain(known)
            .map(|m| m.addr);
        let mut others: Vec<String> = others.filter(|addr| *addr != own).collect();
        // Not all to the same one.
        for i in (1..others.len()).rev() {
            others.swap(i, rand::random_range(0..=i));
        }
        leader.into_iter().chain(others).collect()
    }

    /// Asks the leader, by way of any manager.
    pub(crate) async fn call_leader(&self, call: Call) -> Result<Answer> {
        if self.manager().is_ok_and(|m| m.leads()) {
            return Box::pin(self.answer(self.own_asker(), call)).await;
        }
        let mut last = no_leader();
        for address in self.manager_addresses() {
            match self.link().call(&address, call.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(e) if e.kind == tripod_model::ErrorKind::Unavailable => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// This node, a manager, as it asks itself.
    pub(crate) fn own_asker(&self) -> Asker {
        Asker {
            node_id: self.node_id(),
            role: tripod_model::node::NodeRole::Manager,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// A network of the cluster, by name or identifier, from any node.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when no manager answers.
    pub async fn find_network(&self, reference: &str) -> Result<Option<NetworkSpec>> {
        if let Ok(manager) = self.manager() {
            return Ok(manager.network(reference).ok().map(|network| network.spec));
        }
        let call = Call::Network {
            reference: reference.to_owned(),
        };
        match self.call_leader(call).await? {
            Answer::Network(found) => Ok(found.map(|spec| *spec)),
            _ => Err(Error::internal("an answer to another question")),
        }
    }

    /// The cluster's root certificate.
    pub(crate) fn root(&self) -> Result<String> {
        if let Ok(manager) = self.manager() {
            return Ok(manager.swarm_inspect()?.status.ca_cert);
        }
        // A manager that is on its way into the group.
        let roots = self.0.paths.read_roots();
        roots.ok_or_else(|| Error::unavailable(super::NOT_MEMBER))
    }

    /// Takes a stream that the leader opened to this node.
    pub(crate) async fn serve_door(self, mut stream: Stream) {
        match frame::receive::<Purpose>(&mut stream, frame::MAX).await {
            Ok(Purpose::Door) => crate::door::serve::serve(&self, stream).await,
            Ok(purpose) => tracing::debug!(?purpose, "not for this node"),
            Err(error) => tracing::debug!(%error, "a stream without a purpose"),
        }
    }
}
