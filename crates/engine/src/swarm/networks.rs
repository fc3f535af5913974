//! Networks of the cluster.

use std::collections::BTreeMap;

use tripod_model::data::Network;
use tripod_model::network::{NetworkDriver, NetworkSpec, Subnet};
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::{NAMESPACE, SwarmService};
use tripod_model::{Error, Result, Time};
use tripod_raft::RaftError;
use tripod_store::{Txn, TxnError};

use super::filters::Filters;
use super::find::find;
use super::services::used_data;
use crate::db::{NETWORK_NAMES, TypedTxn, stored, to_error};
use crate::manager::Manager;
use crate::new_id;
use crate::swarm::cluster::meta;

const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// What `docker network create --driver overlay` asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkRequest {
    /// Name.
    pub name: String,
    /// No way to the outside.
    pub internal: bool,
    /// Containers of `docker run` may attach.
    pub attachable: bool,
    /// To be the routing mesh's.
    pub ingress: bool,
    /// IPv6 asked for.
    pub ipv6: bool,
    /// Pools asked for; empty takes one of the cluster's.
    pub subnets: Vec<Subnet>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Options of the address manager.
    pub ipam_options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The specification of an overlay that `request` asks for, before the cluster fills in subnet and VXLAN identifier.
///
/// # Errors
/// [`tripod_model::ErrorKind::Invalid`].
pub fn cluster_network_spec(request: NetworkRequest, id: String, now: Time) -> Result<NetworkSpec> {
    if request.name.trim().is_empty() {
        return Err(Error::invalid("network name cannot be blank").at("Name"));
    }
    if request.ingress && request.attachable {
        return Err(Error::invalid("ingress network cannot be attachable"));
    }
    if request.ipv6 {
        return Err(Error::not_implemented(
            "IPv6 in overlay networks is not implemented",
        ));
    }
    let number = |key: &str| match request.options.get(key) {
        None => Ok(0),
        Some(text) => text
            .parse::<u32>()
            .map_err(|_| Error::invalid(format_args!("invalid value for option {key}: {text}"))),
    };
    let (vni, mtu) = (number(VNI_OPTION)?, number("com.docker.network.driver.mtu")?);
    let encrypted = request
        .options
        .get("encrypted")
        .is_some_and(|v| v != "false" && v != "0");
    if encrypted {
        return Err(Error::not_implemented(
            "encrypted overlay networks are not implemented: traffic between nodes would not be encrypted",
        ));
    }
    Ok(NetworkSpec {
        id,
        name: request.name,
        driver: NetworkDriver::Overlay,
        cluster: true,
        created_at: now,
        internal: request.internal,
        attachable: request.attachable,
        ingress: request.ingress,
        ipv4: true,
        ipv6: false,
        subnets: request.subnets,
        options: request.options,
        ipam_options: request.ipam_options,
        labels: request.labels,
        vni,
        mtu,
        encrypted,
    })
}

impl Manager {
    /// Creates a network of the cluster.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::AlreadyExists`] for a name in use or a second ingress network,
    /// [`tripod_model::ErrorKind::Forbidden`] for subnets that overlap or pools that are used up.
    pub async fn network_create(&self, request: NetworkRequest) -> Result<Network> {
        // Two networks must not take the same subnet.
        let _one = self.references().write().await;
        self.caught_up().await;
        let now = Time::now();
        let mut spec = cluster_network_spec(request, new_id(), now)?;
        if spec.ingress
            && let Some(present) = self.with_view(|view| view.ingress_network().cloned())
        {
            let text = format!("ingress network ({}) is already present", present.metadata.name);
            return Err(Error::already_exists(text));
        }
        spec = self.with_view(|view| tripod_plan::allocate::complete_network(view, spec))?;
        spec.options.insert(VNI_OPTION.into(), spec.vni.to_string());
        let network = Network {
            metadata: meta(spec.id.clone(), now),
            spec,
        };
        match self.db().try_submit(Txn::new().insert(&network)).await {
            Ok(ok) => stored(ok),
            Err(RaftError::Rejected(TxnError::UniqueTaken { .. })) => {
                let text = format!("network with name {} already exists", network.spec.name);
                Err(Error::already_exists(text))
            }
            Err(e) => Err(to_error(e)),
        }
    }

    /// A network by identifier, name or beginning of the identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`], or [`tripod_model::ErrorKind::Invalid`] when several are meant.
    pub fn network(&self, id: &str) -> Result<Network> {
        find(&self.db().snapshot(), "", NETWORK_NAMES, "network", id)
    }

    /// Networks of the cluster, by identifier. Filters are the caller's, who also has local networks; `id`, `name` and
    /// `label` are applied here.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Internal`] if the store does not decode.
    pub fn networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        let mut networks = self.db().snapshot().list::<Network>(None)?;
        networks.retain(|n| {
            filters.any("id", |v| n.metadata.name.contains(v))
                && filters.any("name", |v| n.spec.name.contains(v))
                && filters.labels("label", &n.spec.labels)
        });
        Ok(networks)
    }

    /// Removes a network that nothing uses, and returns what it was.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] while services or tasks use it.
    pub async fn network_remove(&self, id: &str) -> Result<Network> {
        let _one = self.references().write().await;
        self.caught_up().await;
        let network = self.network(id)?;
        let id = network.metadata.name.as_str();
        let services = self.db().snapshot().list::<SwarmService>(Some(NAMESPACE))?;
        if network.spec.ingress {
            if let Some(s) = services.iter().find(|s| tripod_plan::allocate::uses_ingress(s)) {
                let text = format!(
                    "ingress network cannot be removed because service {} depends on it",
                    s.metadata.name
                );
                return Err(Error::invalid(text));
            }
        } else if let Some(s) = services.iter().find(|s| used_data(&s.spec).networks.contains(id)) {
            return Err(Error::invalid(format_args!(
                "network {id} is in use by service {}",
                s.metadata.name
            )));
        }
        let holder = |view: &tripod_plan::View| {
            let mut pods = view.pods();
            pods.find(|p| holds(view, p, id)).and_then(|p| task_id(p))
        };
        if let Some(task) = self.with_view(holder) {
            return Err(Error::invalid(format_args!(
                "network {id} is in use by task {task}"
            )));
        }
        if self
            .sessions
            .leases()
            .values()
            .flatten()
            .any(|(leased, _)| leased == id)
        {
            let name = &network.spec.name;
            return Err(Error::forbidden(format_args!(
                "error while removing network: network {name} has active endpoints"
            )));
        }
        self.db().delete(&network).await?;
        Ok(network)
    }
}

fn task_id(pod: &Pod) -> Option<String> {
    Some(
        pod.swarm()
            .map_or_else(|| pod.metadata.name.clone(), |t| t.task_id.clone()),
    )
}

/// Whether a pod that is to run is attached to a network. One that is on its way out, as the tasks of a service that
/// was removed, takes the network's last use on its node with it.
fn holds(view: &tripod_plan::View, pod: &Pod, network: &str) -> bool {
    let stays = match pod.swarm() {
        Some(task) => task.service_id.is_empty() || view.service(&task.service_id).is_some(),
        None => true,
    };
    stays
        && !pod.state.observed.is_final()
        && pod.state.desired <= DesiredState::Complete
        && pod.extension.networks.iter().any(|n| n.network_id == network)
}
