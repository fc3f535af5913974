//! Services: create, update, roll back, remove, list, and how many of their tasks run.

use std::collections::{BTreeMap, BTreeSet};

use tripod_model::data::{ConfigMap, Network, Secret};
use tripod_model::pod::DesiredState;
use tripod_model::swarm::{
    DataReference, NAMESPACE, NetworkAttachmentConfig, ServiceMode, ServiceSpec, SwarmService, TaskState,
};
use tripod_model::{Error, Result, Time};
use tripod_plan::rebalance::{Rebalancing, rebalance};
use tripod_plan::rollout::{new_service, rollback_service, update_service};
use tripod_plan::validate;
use tripod_raft::RaftError;
use tripod_store::{Txn, TxnError};

use super::filters::Filters;
use super::find::find;
use crate::db::{NETWORK_NAMES, SERVICE_NAMES, Snapshot, TypedTxn, stored, to_error};
use crate::manager::Manager;
use crate::{new_id, new_uid};

/// Networks of a node itself, which services may name.
const NODE_NETWORKS: [&str; 3] = ["host", "bridge", "none"];

/// How an update is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceUpdate {
    /// Go back to the specification before (`rollback=previous`); the one given is not looked at.
    pub rollback: bool,
    /// Take the registry's credentials from the specification before (`registryAuthFrom=previous-spec`) where none are
    /// given; else from the present one.
    pub auth_from_previous: bool,
}

/// `ServiceStatus` of the Docker API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Tasks that run.
    pub running: u64,
    /// Tasks that are to run.
    pub desired: u64,
    /// Tasks of the job's present execution that are done.
    pub completed: u64,
}

impl Manager {
    /// Creates a service and returns it.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`], [`tripod_model::ErrorKind::NotFound`] for a network,
    /// [`tripod_model::ErrorKind::AlreadyExists`] for a name in use.
    pub async fn service_create(&self, mut spec: ServiceSpec) -> Result<SwarmService> {
        let references = self.refer(&spec).await;
        let state = self.db().snapshot();
        resolve_names(&state, &mut spec)?;
        self.with_view(|view| validate::create(view, &spec))?;
        let service = new_service(new_id(), new_uid(), spec, Time::now());
        let txn = require_used(Txn::new().insert(&service), &service.spec);
        self.write_service(txn, &service, references).await
    }

    /// The replicas that would move to make services even; unless it is only asked for, they begin to.
    ///
    /// # Errors
    /// What a failed write says.
    pub async fn rebalance(&self, dry_run: bool) -> Result<Rebalancing> {
        self.caught_up().await;
        let found = self.with_view(|view| rebalance(view, Time::now()));
        let services: BTreeSet<&String> = found.moves.iter().map(|m| &m.service_id).collect();
        for id in services.into_iter().filter(|_| !dry_run) {
            loop {
                let mut service = find_service(&self.db().snapshot(), id)?;
                service.status.rebalancing = true;
                match self.db().try_submit(Txn::new().replace(&service)).await {
                    Err(RaftError::Rejected(TxnError::Conflict { .. })) => {}
                    done => break done.map(drop).map_err(to_error)?,
                }
            }
        }
        Ok(found)
    }

    /// Replaces a service's specification, or goes back to the one before.
    ///
    /// # Errors
    /// As [`Manager::service_create`], and [`tripod_model::ErrorKind::OutOfSequence`] unless it is at `version`.
    pub async fn service_update(
        &self,
        id: &str,
        version: u64,
        mut spec: ServiceSpec,
        how: ServiceUpdate,
    ) -> Result<SwarmService> {
        let references = self.refer(&spec).await;
        let state = self.db().snapshot();
        let service = find_service(&state, id)?;
        if service.metadata.revision() != version {
            return Err(Error::out_of_sequence("update out of sequence"));
        }
        let next = if how.rollback {
            rollback_service(&service, Time::now())?
        } else {
            unchangeable(&service.spec, &spec)?;
            keep_auth(&service, &mut spec, how);
            resolve_names(&state, &mut spec)?;
            self.with_view(|view| validate::update(view, &service, &spec))?;
            update_service(&service, spec, Time::now())
        };
        let txn = require_used(Txn::new().replace(&next), &next.spec);
        self.write_service(txn, &next, references).await
    }

    /// Writes a service and returns it as the first plan for it leaves it: with addresses and ports.
    async fn write_service(
        &self,
        txn: Txn,
        service: &SwarmService,
        references: Referring<'_>,
    ) -> Result<SwarmService> {
        let written = self
            .db()
            .try_submit(txn)
            .await
            .map_err(|e| service_error(e, &service.spec.name))?;
        drop(references);
        self.settled(written.revision).await;
        match self.db().snapshot().get(NAMESPACE, &service.metadata.name)? {
            Some(settled) => Ok(settled),
            // Somebody removed it already.
            None => stored(written),
        }
    }

    /// Removes a service and returns what it was; its tasks end.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`].
    pub async fn service_remove(&self, id: &str) -> Result<SwarmService> {
        loop {
            let service = find_service(&self.db().snapshot(), id)?;
            match self.db().try_submit(Txn::new().remove(&service)).await {
                Ok(_) => return Ok(service),
                // Its status changed meanwhile, which does not matter here.
                Err(RaftError::Rejected(TxnError::Conflict { .. })) => {}
                Err(e) => return Err(to_error(e)),
            }
        }
    }

    /// A service by identifier, name or beginning of the identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`], or [`tripod_model::ErrorKind::Invalid`] when several are meant.
    pub fn service(&self, id: &str) -> Result<SwarmService> {
        find_service(&self.db().snapshot(), id)
    }

    /// Services, by identifier. Filters: `id`, `name`, `label`, `mode`, `runtime`.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for other filters.
    pub fn services(&self, filters: &Filters) -> Result<Vec<SwarmService>> {
        filters.known(&["id", "name", "label", "mode", "runtime"])?;
        let mut services = self.db().snapshot().list::<SwarmService>(Some(NAMESPACE))?;
        services.retain(|s| {
            filters.prefix("id", &s.metadata.name)
                && filters.prefix("name", &s.spec.name)
                && filters.labels("label", &s.spec.labels)
                && filters.any("mode", |m| m == mode_name(&s.spec.mode))
                && filters.any("runtime", |r| r == "container")
        });
        Ok(services)
    }

    /// How many tasks of a service run, are to run and are done.
    pub fn service_counts(&self, service: &SwarmService) -> ServiceCounts {
        let mut counts = ServiceCounts::default();
        let iteration = service.status.job.as_ref().map(|job| job.iteration);
        let mut wanted = 0;
        self.with_view(|view| {
            for pod in view.pods_of_service(&service.metadata.name) {
                let state = &pod.state;
                counts.running += u64::from(state.observed == TaskState::Running);
                wanted += u64::from(state.desired <= DesiredState::Complete);
                let present = pod.swarm().is_some_and(|t| t.job_iteration == iteration);
                counts.completed +=
                    u64::from(iteration.is_some() && present && state.observed == TaskState::Complete);
            }
        });
        counts.desired = match &service.spec.mode {
            ServiceMode::Replicated { replicas } => *replicas,
            ServiceMode::ReplicatedJob { max_concurrent, .. } => *max_concurrent,
            ServiceMode::Global {} => wanted,
            // As SwarmKit has it: those that are yet to complete.
            ServiceMode::GlobalJob {} => wanted.saturating_sub(counts.completed),
        };
        counts
    }

    /// Keeps what a service refers to from going while it is written; one that publishes ports is written alone.
    async fn refer(&self, spec: &ServiceSpec) -> Referring<'_> {
        if spec.endpoint_spec.as_ref().is_none_or(|e| e.ports.is_empty()) {
            return Referring::Shared {
                _guard: self.references().read().await,
            };
        }
        let alone = self.references().write().await;
        self.caught_up().await;
        Referring::Alone { _guard: alone }
    }
}

/// Held while a service is written.
enum Referring<'a> {
    Shared {
        _guard: tokio::sync::RwLockReadGuard<'a, ()>,
    },
    Alone {
        _guard: tokio::sync::RwLockWriteGuard<'a, ()>,
    },
}

pub(crate) fn find_service(state: &Snapshot, id: &str) -> Result<SwarmService> {
    find(state, NAMESPACE, SERVICE_NAMES, "service", id)
}

/// The word of the Docker API for a mode.
fn mode_name(mode: &ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global {} => "global",
        ServiceMode::ReplicatedJob { .. } => "replicated-job",
        ServiceMode::GlobalJob {} => "global-job",
    }
}

fn unchangeable(old: &ServiceSpec, new: &ServiceSpec) -> Result<()> {
    if old.name != new.name {
        return Err(Error::not_implemented("renaming services is not supported"));
    }
    if mode_name(&old.mode) != mode_name(&new.mode) {
        return Err(Error::not_implemented("service mode change is not allowed"));
    }
    Ok(())
}

/// Credentials are not served, so that a client that sends back what it read has lost them.
fn keep_auth(service: &SwarmService, spec: &mut ServiceSpec, how: ServiceUpdate) {
    let container = &mut spec.task_template.container;
    if !container.registry_auth.is_empty() {
        return;
    }
    let from = match (&service.previous_spec, how.auth_from_previous) {
        (Some(previous), true) => previous,
        _ => &service.spec,
    };
    container
        .registry_auth
        .clone_from(&from.task_template.container.registry_auth);
}

/// Puts identifiers in the place of names, and looks for what does not exist.
fn resolve_names(state: &Snapshot, spec: &mut ServiceSpec) -> Result<()> {
    for attachment in spec.networks.iter_mut().chain(&mut spec.task_template.networks) {
        resolve_network(state, attachment)?;
    }
    let container = &spec.task_template.container;
    missing("secret", &container.secrets, |id| {
        Ok(state.get::<Secret>(NAMESPACE, id)?.is_some())
    })?;
    missing("config", &container.configs, |id| {
        Ok(state.get::<ConfigMap>(NAMESPACE, id)?.is_some())
    })
}

fn resolve_network(state: &Snapshot, attachment: &mut NetworkAttachmentConfig) -> Result<()> {
    let word = attachment.target.as_str();
    if NODE_NETWORKS.contains(&word) {
        return Ok(());
    }
    let network: Network = find(state, "", NETWORK_NAMES, "network", word)?;
    if network.spec.ingress {
        let text = format!(
            "Service cannot be explicitly attached to the ingress network \"{}\"",
            network.spec.name
        );
        return Err(Error::invalid(text));
    }
    attachment.target = network.metadata.name;
    Ok(())
}

fn missing(what: &str, wanted: &[DataReference], exists: impl Fn(&str) -> Result<bool>) -> Result<()> {
    let mut names = Vec::new();
    for reference in wanted {
        if !exists(&reference.id)? {
            names.push(reference.name.as_str());
        }
    }
    match names.len() {
        0 => Ok(()),
        1 => Err(Error::invalid(format_args!("{what} not found: {}", names[0]))),
        _ => Err(Error::invalid(format_args!(
            "{what}s not found: {}",
            names.join(", ")
        ))),
    }
}

/// What the service uses must be there when it is written: removal looks for users in the same way.
fn require_used(mut txn: Txn, spec: &ServiceSpec) -> Txn {
    let used = used_data(spec);
    for id in &used.secrets {
        txn = txn.require::<Secret>(NAMESPACE, id);
    }
    for id in &used.configs {
        txn = txn.require::<ConfigMap>(NAMESPACE, id);
    }
    for id in used
        .networks
        .iter()
        .filter(|id| !NODE_NETWORKS.contains(&id.as_str()))
    {
        txn = txn.require::<Network>("", id);
    }
    txn
}

/// Identifiers of what a service uses.
#[derive(Default)]
pub(crate) struct Used {
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) configs: BTreeSet<String>,
    pub(crate) networks: BTreeSet<String>,
}

pub(crate) fn used_data(spec: &ServiceSpec) -> Used {
    let container = &spec.task_template.container;
    let ids = |refs: &[DataReference]| refs.iter().map(|r| r.id.clone()).collect();
    let networks = spec.networks.iter().chain(&spec.task_template.networks);
    Used {
        secrets: ids(&container.secrets),
        configs: ids(&container.configs),
        networks: networks.map(|n| n.target.clone()).collect(),
    }
}

/// The names of the services that use something, sorted.
pub(crate) fn users(state: &Snapshot, uses: impl Fn(&Used) -> bool) -> Result<BTreeMap<String, String>> {
    let services = state.list::<SwarmService>(Some(NAMESPACE))?;
    let using = services.into_iter().filter(|s| uses(&used_data(&s.spec)));
    Ok(using.map(|s| (s.spec.name, s.metadata.name)).collect())
}

fn service_error(error: RaftError, name: &str) -> Error {
    match error {
        RaftError::Rejected(TxnError::UniqueTaken { .. }) => Error::already_exists(format_args!(
            "name conflicts with an existing object: service {name} already exists"
        )),
        e => to_error(e),
    }
}
