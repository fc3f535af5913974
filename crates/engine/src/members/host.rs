//! The leader's side of a node's session over the network.

use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tripod_model::node::NodeState;
use tripod_model::session::Assignment;
use tripod_model::{Error, Result, Time};

use super::Common;
use super::answers::no_leader;
use super::connections::{Heard, in_use};
use crate::engine::Engine;
use crate::link::message::{FromNode, Hello, Settings, ToNode, Welcome};
use crate::link::mux::Stream;
use crate::link::{Caller, frame};
use crate::manager::Manager;
use crate::session::{NodeSession, Reporter};
use std::sync::Arc;

/// How often a node hears of its leader at least.
const ALIVE: Duration = Duration::from_secs(1);
/// A node is lost after so many missed heartbeats.
const MISSED: u32 = 3;
/// A node that was heard of within so many heartbeats has its identifier for itself.
const CLAIM: u32 = 2;
/// How long the answer to a node waits for the node to count as ready.
const READY: Duration = Duration::from_secs(3);

/// Serves a node's session until it ends.
pub(super) async fn host(engine: Engine, caller: Caller, hello: Hello, mut stream: Stream) {
    let Some(node_id) = caller.holder.as_ref().map(|h| h.node_id.clone()) else {
        return;
    };
    let (manager, session, heard) = match open(&engine, &caller, &node_id, hello).await {
        Ok(opened) => opened,
        Err(welcome) => {
            // The node may be gone already.
            let _ = frame::send(&mut stream, &welcome).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            return;
        }
    };
    if let Err(error) = serve(&manager, session, &node_id, heard, stream).await {
        tracing::debug!(node = node_id, %error, "a session ended");
    }
    caller.mux.end();
    caller.mux.closed().await;
    manager.sessions.connections.forget(&node_id);
}

async fn open(
    engine: &Engine,
    caller: &Caller,
    node_id: &str,
    hello: Hello,
) -> Result<(Arc<Manager>, NodeSession, Heard), Welcome> {
    let manager = engine.manager().map_err(|_| Welcome::Elsewhere(None))?;
    if !manager.leads() {
        return Err(Welcome::Elsewhere(manager.leader_address()));
    }
    let address = match hello.address.as_str() {
        "" => caller.address.to_string(),
        given => given.to_owned(),
    };
    let heard = claim(&manager, caller, node_id, hello.instance).map_err(Welcome::Refused)?;
    let described = manager.change_node(node_id, |node| {
        node.status.description = hello.description.clone();
        node.status.addr.clone_from(&address);
        node.status.data_path_addr = hello.data_path_addr.filter(|a| a.to_string() != address);
    });
    described.await.map_err(Welcome::Refused)?;
    let session = manager
        .session(node_id)
        .map_err(|_| Welcome::Elsewhere(manager.leader_address()))?;
    // So that who asks for the node next finds it ready.
    let mut revision = manager.view_revision();
    let ready = async {
        let is = |m: &Manager| m.node(node_id).is_ok_and(|n| n.status.state == NodeState::Ready);
        while !is(&manager) {
            if revision.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(READY, ready).await;
    Ok((manager, session, heard))
}

/// The identifier is this daemon's for as long as it is heard of.
fn claim(manager: &Manager, caller: &Caller, node_id: &str, instance: u64) -> Result<Heard> {
    if node_id == manager.node_id() {
        return Err(in_use(node_id, &manager.standing().advertise_addr));
    }
    let heartbeat = Duration::from_millis(manager.common.borrow().heartbeat_ms.max(100));
    let (address, mux) = (caller.address.to_string(), caller.mux.clone());
    let connections = &manager.sessions.connections;
    connections.claim(node_id, instance, &address, mux, heartbeat * CLAIM)
}

async fn serve(
    manager: &Arc<Manager>,
    mut session: NodeSession,
    node_id: &str,
    heard: Heard,
    stream: Stream,
) -> Result<()> {
    let (reading, mut writing) = tokio::io::split(stream);
    let reporter = session.reporter();
    let (messages, mut arriving) = mpsc::channel(64);
    let (answer, mut answers) = mpsc::channel(16);
    let reader = tokio::spawn(read(reading, messages));
    let _reader = AbortOnDrop(reader);
    let mut common = manager.common.subscribe();
    let mut told = settings_of(manager, &common.borrow_and_update(), node_id);
    write(&mut writing, &Welcome::Accepted(told.clone())).await?;
    let mut alive = tokio::time::interval(ALIVE);
    let mut nodes = manager.view_revision();
    loop {
        let patience = Duration::from_millis(told.heartbeat_ms.max(100)) * MISSED;
        tokio::select! {
            assignment = session.next() => {
                let Some(assignment) = assignment else { return Err(no_leader()) };
                send(&mut writing, assignment).await?;
            }
            message = arriving.recv() => {
                heard.again();
                session.last_heard(Time::now());
                let message = message.ok_or_else(|| Error::unavailable("the node closed the connection"))?;
                match message {
                    FromNode::Describe(description) => {
                        manager.change_node(node_id, |node| node.status.description = (*description).clone()).await?;
                    }
                    message => take(&reporter, message, &answer)?,
                }
            }
            Some(answer) = answers.recv() => write(&mut writing, &answer).await?,
            _ = alive.tick() => {
                if heard.ago() > patience {
                    return Err(Error::timeout("heartbeat failure"));
                }
                write(&mut writing, &ToNode::Alive).await?;
            }
            changed = common.changed() => if changed.is_err() { return Err(no_leader()) },
            changed = nodes.changed() => if changed.is_err() { return Err(no_leader()) },
        }
        let settings = settings_of(manager, &common.borrow_and_update(), node_id);
        nodes.borrow_and_update();
        if settings != told {
            told = settings;
            write(&mut writing, &ToNode::Settings(told.clone())).await?;
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn settings_of(manager: &Manager, common: &Common, node_id: &str) -> Settings {
    manager.with_view(|view| common.settings(view.node_by_id(node_id).map(|node| &**node)))
}

async fn send(writing: &mut WriteHalf<Stream>, assignment: Assignment) -> Result<()> {
    write(writing, &ToNode::Assignment(Box::new(assignment))).await
}

async fn write(writing: &mut WriteHalf<Stream>, message: &impl serde::Serialize) -> Result<()> {
    frame::send(writing, message).await.map_err(Error::unavailable)
}

/// Reads until the connection ends; a partly read message must not be given up, as it would be in a `select!`.
async fn read(mut reading: ReadHalf<Stream>, messages: mpsc::Sender<FromNode>) {
    while let Ok(message) = frame::receive(&mut reading, frame::MAX).await {
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

fn take(reporter: &Reporter, message: FromNode, answers: &mpsc::Sender<ToNode>) -> Result<()> {
    match message {
        FromNode::Alive | FromNode::Describe(_) => {}
        FromNode::Reports(reports) => reporter.report(reports)?,
        FromNode::Acknowledge(revision) => reporter.acknowledge(revision),
        FromNode::Images(change) => reporter.images(*change),
        FromNode::Attach(networks) => reporter.attach(networks),
        FromNode::Release { owner } => reporter.release(&owner),
        FromNode::Lease {
            id,
            owner,
            network,
            wanted,
        } => {
            let (reporter, answers) = (reporter.clone(), answers.clone());
            tokio::spawn(async move {
                let result = reporter.lease(&owner, &network, wanted).await;
                // The session is over: the node asks again in the next one.
                let _ = answers.send(ToNode::Leased { id, result }).await;
            });
        }
        FromNode::Token { id, request } => {
            let (reporter, answers) = (reporter.clone(), answers.clone());
            tokio::spawn(async move {
                let result = reporter.token(request).await;
                let _ = answers.send(ToNode::Token { id, result }).await;
            });
        }
    }
    Ok(())
}
