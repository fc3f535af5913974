//! One pod's worker: looks at what is wanted and what is there, does the next step, and tells the manager.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tripod_model::Time;
use tripod_model::network::PortProtocol;
use tripod_model::pod::{DesiredState, HostPort};
use tripod_model::session::{DataItem, PodReport};
use tripod_model::swarm::TaskState;

use super::Wish;
use super::spec::{self, NodeIdentity};
use super::step::{Action, step};
use crate::record::ContainerRecord;
use crate::{Agent, Owner, RemoveOptions, StopOptions};

/// How long a replica that listens on none of its ports is kept out of its frontends.
const LISTEN_PATIENCE: Duration = Duration::from_secs(4);
/// The longest time for which connections may drain before the stop signal.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the connections that drain: the kernel tells of them only when asked.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// A container of a task that has no grace period of its own.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

pub(super) fn spawn(
    agent: Agent,
    node: NodeIdentity,
    wishes: watch::Receiver<Wish>,
    data: Arc<Mutex<BTreeMap<String, Arc<DataItem>>>>,
    reports: mpsc::UnboundedSender<PodReport>,
    (key, ended): (String, mpsc::UnboundedSender<String>),
) {
    let pod = wishes.borrow().pod.clone();
    let worker = Worker {
        reported: pod.state.observed,
        serving: pod.state.serving,
        container: agent.container_of(&pod.metadata.uid),
        agent,
        node,
        wishes,
        data,
        reports,
    };
    tokio::spawn(async move {
        worker.run().await;
        let _ = ended.send(key);
    });
}

struct Worker {
    agent: Agent,
    node: NodeIdentity,
    wishes: watch::Receiver<Wish>,
    data: Arc<Mutex<BTreeMap<String, Arc<DataItem>>>>,
    reports: mpsc::UnboundedSender<PodReport>,
    reported: TaskState,
    serving: bool,
    container: Option<String>,
}

impl Worker {
    async fn run(mut self) {
        self.resume().await;
        // The daemon may have died between the report that it runs and the one that it serves.
        if self.reported == TaskState::Running
            && !self.serving
            && self.record().is_some_and(|r| r.is_running())
        {
            let wish = self.wishes.borrow().clone();
            self.await_serving(&wish).await;
        }
        loop {
            // The session is over: the next one's worker goes on from what is there.
            if self.wishes.has_changed().is_err() {
                return;
            }
            let wish = self.wishes.borrow_and_update().clone();
            let record = self.record();
            match step(
                wish.pod.state.desired,
                wish.gone,
                self.reported,
                record.as_deref(),
            ) {
                Action::Prepare => self.prepare().await,
                Action::Start => self.start(&wish).await,
                Action::Report(state, message, error) => {
                    self.report(&wish, state, message, error);
                    if state == TaskState::Running {
                        self.await_serving(&wish).await;
                    }
                }
                Action::Stop => self.stop(record.as_deref(), &wish).await,
                Action::Remove => self.remove().await,
                Action::Wait if wish.gone && record.is_none() => return,
                Action::Wait => {
                    if !self.wait().await {
                        return;
                    }
                }
            }
        }
    }

    /// Starts a container again that the last daemon stopped with itself. The task stays the same one: nothing failed,
    /// and its service has no restart to wait for.
    async fn resume(&mut self) {
        let wish = self.wishes.borrow().clone();
        let stopped = self.record().is_some_and(|r| r.resume && !r.is_running());
        let wanted = !wish.gone && wish.pod.state.desired < DesiredState::Shutdown;
        if !stopped || !wanted || self.reported.is_final() {
            return;
        }
        if std::mem::replace(&mut self.serving, false) {
            self.report(&wish, self.reported, "starting", String::new());
        }
        self.start(&wish).await;
    }

    fn record(&self) -> Option<Arc<ContainerRecord>> {
        self.container
            .as_ref()
            .and_then(|id| self.agent.container(id).ok())
    }

    /// Waits until the wish or the container changes; false when the session is over.
    async fn wait(&mut self) -> bool {
        let watch = self
            .container
            .as_ref()
            .and_then(|id| self.agent.watch_container(id).ok());
        match watch {
            Some(mut container) => {
                // The record may have changed between the decision and this subscription: look once more first.
                let seen = container.borrow_and_update().clone();
                let wish = self.wishes.borrow().clone();
                if step(wish.pod.state.desired, wish.gone, self.reported, Some(&seen)) != Action::Wait {
                    return true;
                }
                tokio::select! {
                    changed = self.wishes.changed() => changed.is_ok(),
                    _ = container.changed() => true,
                }
            }
            None => self.wishes.changed().await.is_ok(),
        }
    }

    fn report(&mut self, wish: &Wish, state: TaskState, message: &str, error: String) {
        self.reported = self.reported.max(state);
        if state.is_final() {
            self.serving = false;
        }
        let record = self.record();
        let ports = record.as_deref().map(host_ports).unwrap_or_default();
        let report = PodReport {
            pod: super::pod_key(&wish.pod),
            uid: wish.pod.metadata.uid.clone(),
            state,
            at: Some(Time::now()),
            message: message.to_owned(),
            error,
            container_id: self.container.clone().unwrap_or_default(),
            pid: record.as_deref().map_or(0, |r| r.state.pid),
            exit_code: record
                .as_deref()
                .filter(|r| r.state.finished_at.is_some())
                .map(|r| r.state.exit_code),
            ports,
            serving: self.serving,
            ..PodReport::default()
        };
        // The session has ended when nobody takes it: the next one begins with what is then true.
        let _ = self.reports.send(report);
    }

    async fn prepare(&mut self) {
        let wish = self.wishes.borrow().clone();
        if self.reported < TaskState::Preparing {
            self.report(&wish, TaskState::Preparing, "preparing", String::new());
        }
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let agent = self.agent.clone();
        let node = self.node.clone();
        let pod = wish.pod.clone();
        let mut wishes = self.wishes.clone();
        let ending = wishes.wait_for(|w| w.gone || w.pod.state.desired >= DesiredState::Shutdown);
        let plan = async {
            let mut plan = spec::plan(&pod, &node, &data)?;
            let image = agent
                .ensure_image(&plan.create.spec.image, plan.credentials)
                .await?;
            plan.create.image = Some(image);
            Ok(plan.create)
        };
        let plan = tokio::select! {
            plan = plan => plan,
            _ = ending => return,
        };
        // The pull is given up when the task is to end; what is being made is made, so that it can be removed.
        let made = match plan {
            Ok(create) => agent.create_container(create).await,
            Err(e) => Err(e),
        };
        match made {
            Ok(created) => self.container = Some(created.id),
            Err(e) => self.report(&wish, TaskState::Rejected, "preparing", e.message),
        }
    }

    async fn start(&mut self, wish: &Wish) {
        let Some(id) = self.container.clone() else { return };
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let started = async {
            let plan = spec::plan(&wish.pod, &self.node, &data)?;
            self.agent.start_container_with(&id, plan.files).await
        };
        if let Err(e) = started.await {
            self.report(
                wish,
                TaskState::Failed,
                "starting",
                format!("starting container failed: {}", e.message),
            );
        }
    }

    /// Reports that connections may come as soon as one of the replica's ports listens.
    async fn await_serving(&mut self, wish: &Wish) {
        let Some(record) = self.record() else { return };
        let ports = tcp_ports(&record, wish);
        if !ports.is_empty() && record.state.health.is_none() {
            let net = self.agent.net().clone();
            let mut wishes = self.wishes.clone();
            let Ok(mut container) = self.agent.watch_container(&record.id) else {
                return;
            };
            tokio::select! {
                _ = net.wait_listening(&record.id, &ports, LISTEN_PATIENCE) => {}
                _ = wishes.wait_for(|w| w.gone || w.pod.state.desired >= DesiredState::Shutdown) => return,
                _ = container.wait_for(|r| !r.is_running()) => return,
            }
        }
        self.serving = true;
        self.report(wish, TaskState::Running, "started", String::new());
    }

    /// Frontends lead here no longer: lets the connections that are left finish, then stops the container.
    async fn stop(&mut self, record: Option<&ContainerRecord>, wish: &Wish) {
        let Some(record) = record else { return };
        let grace = record
            .spec
            .stop_timeout
            .and_then(|s| u64::try_from(s).ok())
            .map_or(DEFAULT_GRACE, Duration::from_secs);
        let patience = DRAIN_PATIENCE.min(grace / 2);
        if self.serving && wish.pod.state.desired >= DesiredState::Shutdown {
            self.drain(record, patience).await;
        }
        self.serving = false;
        match self
            .agent
            .stop_container(&record.id, StopOptions::default())
            .await
        {
            Err(e) if e.kind != tripod_model::ErrorKind::NotModified => {
                tracing::warn!("{} does not stop: {e}", record.name);
                self.report(wish, self.reported, "stopping", e.message);
                // Told; tried again when something changes.
                self.wait().await;
            }
            _ => {}
        }
    }

    async fn drain(&self, record: &ContainerRecord, patience: Duration) {
        let until = Instant::now() + patience;
        let mut exits = match self.agent.watch_container(&record.id) {
            Ok(exits) => exits,
            Err(_) => return,
        };
        while Instant::now() < until {
            let mut left = 0;
            for e in &record.endpoints {
                let Some(net) = e.ipv4 else { continue };
                left += self
                    .agent
                    .net()
                    .established(&e.network_id, net.addr())
                    .await
                    .unwrap_or(0);
            }
            if left == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(DRAIN_LOOK) => {}
                _ = exits.wait_for(|r| !r.is_running()) => return,
            }
        }
    }

    async fn remove(&mut self) {
        let Some(id) = self.container.take() else { return };
        let options = RemoveOptions {
            force: true,
            volumes: true,
        };
        if let Err(e) = self.agent.remove_container(&id, options).await
            && e.kind != tripod_model::ErrorKind::NotFound
        {
            tracing::warn!("the container {id} of a task stays: {e}");
        }
    }
}

/// TCP ports on which the replica is expected to listen: those that the mesh leads to, or those that it declares.
fn tcp_ports(record: &ContainerRecord, wish: &Wish) -> Vec<u16> {
    let mesh = wish
        .pod
        .swarm()
        .map(|t| t.mesh_ports.as_slice())
        .unwrap_or_default();
    let mut ports: Vec<u16> = mesh
        .iter()
        .filter(|p| p.protocol == PortProtocol::Tcp)
        .map(|p| p.target)
        .collect();
    if mesh.is_empty() {
        let declared = record
            .spec
            .exposed_ports
            .iter()
            .filter(|p| p.protocol == PortProtocol::Tcp);
        ports.extend(declared.map(|p| p.port));
    }
    ports
}

fn host_ports(record: &ContainerRecord) -> Vec<HostPort> {
    record
        .ports
        .iter()
        .map(|p| HostPort {
            target: p.target_port,
            published: p.host_port,
            protocol: p.protocol,
        })
        .collect()
}

impl Agent {
    /// The container of a pod, by the pod's unique identifier.
    pub fn container_of(&self, uid: &str) -> Option<String> {
        self.containers()
            .iter()
            .find(|r| matches!(&r.owner, Owner::Pod { uid: u, .. } if u == uid))
            .map(|r| r.id.clone())
    }
}
