//! The cluster object: founding, inspecting, settings, tokens, the authority and the unlock key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tripod_model::data::Network;
use tripod_model::ipam;
use tripod_model::network::{NetworkDriver, NetworkSpec, Subnet};
use tripod_model::node::{
    ManagerStatus, Node, NodeDescription, NodeRole, NodeSpec, NodeStatus, NodeSwarmSpec,
};
use tripod_model::object::ObjectMeta;
use tripod_model::swarm::{NAMESPACE, SwarmCluster, SwarmSpec, SwarmStatus};
use tripod_model::{Error, Result, Time};
use tripod_store::{Key, Txn};

use crate::ca::{self, Authority};
use crate::db::TypedTxn;
use crate::manager::Manager;
use crate::paths::{Credentials, Standing};
use crate::request::InitRequest;
use crate::{new_id, new_uid};

/// The first VXLAN network identifier, that of the routing mesh.
pub(crate) const FIRST_VNI: u32 = 4096;
const DEFAULT_DATA_PATH_PORT: u16 = 4789;
const DEFAULT_POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);
const DEFAULT_SUBNET_SIZE: u8 = 24;
/// At most this often is a renewal tried.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000_000_000;

/// The objects of a cluster that is about to be.
pub(crate) struct Founding {
    pub(crate) cluster: SwarmCluster,
    pub(crate) node: Node,
    ingress: Network,
}

impl Founding {
    pub(crate) fn new(
        request: &InitRequest,
        machine: &NodeDescription,
        advertise: SocketAddr,
    ) -> Result<Self> {
        check_spec(&request.spec)?;
        let (pools, size) = check_pools(request)?;
        let authority = match request.spec.signing_ca_cert.as_str() {
            "" => Authority::generate()?,
            cert => Authority::from_pem(cert, &request.signing_ca_key)?,
        };
        let now = Time::now();
        let mut status = SwarmStatus {
            default_addr_pool: pools.clone(),
            subnet_size: size,
            data_path_port: match request.data_path_port {
                0 => DEFAULT_DATA_PATH_PORT,
                port => port,
            },
            updated_at: Some(now),
            ..SwarmStatus::default()
        };
        install(&mut status, &authority)?;
        if request.spec.autolock {
            status.unlock_key = ca::format_unlock_key(&ca::new_unlock_key());
        }
        let spec = SwarmSpec {
            signing_ca_cert: String::new(),
            ..request.spec.clone()
        };
        let cluster = SwarmCluster {
            metadata: meta(new_id(), now),
            spec,
            status,
        };
        let node = first_node(request, machine, advertise, now, &cluster.status);
        let ingress = ingress_network(&pools, size, now)?;
        Ok(Self {
            cluster,
            node,
            ingress,
        })
    }

    pub(crate) fn txn(&self, standing: &Standing) -> Txn {
        debug_assert_eq!(standing.cluster_id, self.cluster.metadata.name);
        let mut node = self.node.clone();
        if let Some(manager) = &mut node.status.manager {
            manager.raft_id = standing.raft_id;
        }
        let namespace = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": meta(NAMESPACE.into(), Time::now()),
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        Txn::new()
            .insert(&self.cluster)
            .insert(&node)
            .insert(&self.ingress)
            .put(Key::cluster("namespaces", NAMESPACE), namespace.to_string())
    }
}

/// Metadata of a new object of the whole cluster.
pub(crate) fn meta(name: String, now: Time) -> ObjectMeta {
    ObjectMeta {
        name,
        uid: new_uid(),
        generation: 1,
        creation_timestamp: Some(now),
        ..ObjectMeta::default()
    }
}

fn install(status: &mut SwarmStatus, authority: &Authority) -> Result<()> {
    let trust = authority.trust()?;
    status.ca_cert.clone_from(&authority.cert);
    status.ca_key.clone_from(&authority.key);
    status.issuer_subject = trust.issuer_subject;
    status.issuer_public_key = trust.issuer_public_key;
    status.worker_token = authority.token();
    status.manager_token = authority.token();
    Ok(())
}

/// A host name made a Kubernetes name (RFC 1123): lower case, and dashes for what is not allowed.
pub(crate) fn safe_name(hostname: &str) -> String {
    let name: String = hostname
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .take(200)
        .collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() {
        "node".into()
    } else {
        name.into()
    }
}

fn first_node(
    request: &InitRequest,
    machine: &NodeDescription,
    advertise: SocketAddr,
    now: Time,
    status: &SwarmStatus,
) -> Node {
    let swarm = NodeSwarmSpec {
        node_id: new_id(),
        role: NodeRole::Manager,
        availability: request.availability,
        ..NodeSwarmSpec::default()
    };
    Node {
        metadata: meta(safe_name(&machine.hostname), now),
        spec: NodeSpec {
            swarm,
            ..NodeSpec::default()
        },
        status: NodeStatus {
            addr: advertise.ip().to_string(),
            manager: Some(ManagerStatus {
                leader: true,
                reachable: true,
                addr: advertise.to_string(),
                raft_id: 0,
            }),
            description: describe(machine, status),
            since: Some(now),
            ..NodeStatus::default()
        },
    }
}

/// A machine's description with the trust part filled in.
pub(crate) fn describe(machine: &NodeDescription, status: &SwarmStatus) -> NodeDescription {
    NodeDescription {
        trust_root: status.ca_cert.clone(),
        issuer_subject: status.issuer_subject.clone(),
        issuer_public_key: status.issuer_public_key.clone(),
        ..machine.clone()
    }
}

fn ingress_network(pools: &[Ipv4Net], size: u8, now: Time) -> Result<Network> {
    let sized: Vec<(Ipv4Net, u8)> = pools.iter().map(|p| (*p, size)).collect();
    let subnet = IpNet::V4(ipam::pick_subnet(&sized, &[])?);
    let id = new_id();
    let spec = NetworkSpec {
        id: id.clone(),
        name: "ingress".into(),
        driver: NetworkDriver::Overlay,
        cluster: true,
        created_at: now,
        internal: false,
        attachable: false,
        ingress: true,
        ipv4: true,
        ipv6: false,
        subnets: vec![Subnet {
            subnet,
            gateway: ipam::first_host(&subnet),
            ip_range: None,
            aux_addresses: Default::default(),
        }],
        options: [(
            "com.docker.network.driver.overlay.vxlanid_list".to_owned(),
            FIRST_VNI.to_string(),
        )]
        .into(),
        ipam_options: Default::default(),
        labels: Default::default(),
        vni: FIRST_VNI,
        mtu: 0,
        encrypted: false,
    };
    Ok(Network {
        metadata: meta(id, now),
        spec,
    })
}

fn check_pools(request: &InitRequest) -> Result<(Vec<Ipv4Net>, u8)> {
    let size = if request.subnet_size == 0 {
        DEFAULT_SUBNET_SIZE
    } else {
        request.subnet_size
    };
    if request.data_path_port != 0 && !(1024..=49151).contains(&request.data_path_port) {
        let text = format!(
            "invalid data path port number {}, it must be in the range 1024 to 49151",
            request.data_path_port
        );
        return Err(Error::invalid(text).at("DataPathPort"));
    }
    let mut pools: Vec<Ipv4Net> = request.default_addr_pool.iter().map(Ipv4Net::trunc).collect();
    if pools.is_empty() {
        pools.push(Ipv4Net::new_assert(DEFAULT_POOL.0, DEFAULT_POOL.1));
    }
    if !(1..=29).contains(&size) {
        return Err(Error::invalid(format_args!(
            "invalid subnet size {size}: it must be between 1 and 29"
        )));
    }
    for (i, pool) in pools.iter().enumerate() {
        if pool.prefix_len() > size {
            let text = format!("invalid CIDR: subnet size /{size} is larger than the address pool {pool}");
            return Err(Error::invalid(text).at("DefaultAddrPool"));
        }
        let overlaps = |other: &&Ipv4Net| ipam::overlaps(&IpNet::V4(*pool), &IpNet::V4(**other));
        if let Some(other) = pools[..i].iter().find(overlaps) {
            let text = format!("invalid CIDR: address pools {other} and {pool} overlap");
            return Err(Error::invalid(text).at("DefaultAddrPool"));
        }
    }
    Ok((pools, size))
}

/// Checks what a user may set of a cluster.
pub(crate) fn check_spec(spec: &SwarmSpec) -> Result<()> {
    let fault = |text: &str| Err(Error::invalid(text));
    match spec {
        s if s.name != "default" => fault("swarm spec must be named \"default\""),
        s if s.heartbeat_period <= 0 => fault("heartbeat time period cannot be a negative duration"),
        s if s.node_cert_expiry < HOUR => fault("minimum certificate expiry time is: 1h0m0s"),
        s if s.election_tick <= s.heartbeat_tick => fault("ElectionTick must be greater than HeartbeatTick"),
        s if s.heartbeat_tick < 1 => fault("HeartbeatTick must be greater than 0"),
        s if !s.external_cas.is_empty() => Err(Error::not_implemented(
            "external certificate authorities are not implemented",
        )),
        _ => Ok(()),
    }
}

/// What `docker swarm update`, `join-token --rotate`, `unlock-key --rotate` and `ca --rotate` ask for.
#[derive(Clone, Debug, Default)]
pub struct ClusterUpdate {
    /// The new settings. `signing_ca_cert` and a higher `force_rotate` ask for a rotation of the authority.
    pub spec: SwarmSpec,
    /// Key of `spec.signing_ca_cert`.
    pub signing_ca_key: String,
    /// Make a new join token of workers.
    pub rotate_worker_token: bool,
    /// Make a new join token of managers.
    pub rotate_manager_token: bool,
    /// Make a new unlock key.
    pub rotate_unlock_key: bool,
}

impl Manager {
    /// The cluster. Its status holds secrets: serve only what the API documents.
    pub fn swarm_inspect(&self) -> Result<SwarmCluster> {
        let found = self.db().snapshot().get("", self.cluster_id())?;
        found.ok_or_else(|| Error::internal("the cluster's own object is missing"))
    }

    /// Changes settings, tokens, the unlock key and the authority.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::OutOfSequence`] unless the cluster is at `version`.
    pub async fn swarm_update(&self, version: u64, update: ClusterUpdate) -> Result<()> {
        check_spec(&update.spec)?;
        let _one = self.settings().lock().await;
        let mut cluster = self.swarm_inspect()?;
        if cluster.metadata.revision() != version {
            return Err(Error::out_of_sequence("update out of sequence"));
        }
        let before = cluster.clone();
        let rotated = rotate_authority(&mut cluster, &update)?;
        if !rotated {
            let authority = authority(&cluster);
            if update.rotate_worker_token {
                cluster.status.worker_token = authority.token();
            }
            if update.rotate_manager_token {
                cluster.status.manager_token = authority.token();
            }
        }
        let lock = update.spec.autolock;
        if !lock {
            cluster.status.unlock_key.clear();
        } else if !before.spec.autolock || update.rotate_unlock_key || before.status.unlock_key.is_empty() {
            cluster.status.unlock_key = ca::format_unlock_key(&ca::new_unlock_key());
        }
        // The certificate given is the authority's from now on; it is not a setting that stays.
        cluster.spec = SwarmSpec {
            signing_ca_cert: String::new(),
            ..update.spec
        };
        cluster.metadata.generation += 1;
        cluster.status.updated_at = Some(Time::now());
        let cluster = self.db().update(&cluster).await?;
        if cluster.status.unlock_key != before.status.unlock_key || rotated {
            self.apply_keys(&cluster, rotated).await?;
        }
        if rotated {
            self.describe_trust(&cluster).await?;
        }
        Ok(())
    }

    /// The key that unlocks managers after a restart; empty when they are not locked.
    pub fn unlock_key(&self) -> Result<String> {
        Ok(self.swarm_inspect()?.status.unlock_key)
    }

    /// Brings this node's disk and identity into line with the cluster's unlock key and authority.
    pub(crate) async fn apply_keys(&self, cluster: &SwarmCluster, reissue: bool) -> Result<()> {
        let lock = match cluster.status.unlock_key.as_str() {
            "" => None,
            text => Some(ca::parse_unlock_key(text)?),
        };
        let (store, paths, standing) = (self.db().cluster().clone(), self.paths().clone(), self.standing());
        let (link, cluster) = (self.link.clone(), cluster.clone());
        let one = self.keys.clone().lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let _one = one;
            store.set_unlock_key(lock.as_ref()).map_err(crate::db::to_error)?;
            let roots = roots(&cluster);
            let kept = paths
                .read_credentials(lock.as_ref())
                .or_else(|| paths.read_credentials(None));
            let kept = kept
                .filter(|kept| !reissue && kept.roots == roots && Time::now() < ca::renew_at(&kept.chain));
            let credentials = match kept {
                Some(kept) => kept,
                None => {
                    let valid = Duration::from_nanos(cluster.spec.node_cert_expiry.unsigned_abs());
                    let name = &cluster.metadata.name;
                    let issued =
                        authority(&cluster).issue(&standing.node_id, NodeRole::Manager, name, valid)?;
                    Credentials {
                        roots,
                        chain: chain(&issued.cert, &cluster),
                        key: issued.key,
                    }
                }
            };
            paths.write_credentials(&credentials, lock.as_ref())?;
            link.install(&credentials.roots, &credentials.chain, &credentials.key)
        });
        written.await.map_err(Error::internal)?
    }

    /// Renews this node's certificate whenever half of its life is over, for as long as the manager runs.
    pub(crate) async fn renew_certificates(self: Arc<Self>) {
        loop {
            let wait = match self.paths().read_certificate() {
                Some(cert) => ca::renew_at(&cert).duration_since(Time::now()),
                None => return,
            };
            // Its end is the manager's: the task is aborted.
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default().max(RENEWAL_PAUSE)).await;
            let renewed = match self.swarm_inspect() {
                Ok(cluster) => self.apply_keys(&cluster, false).await,
                Err(e) => Err(e),
            };
            if let Err(error) = renewed {
                tracing::error!(%error, "the node's certificate cannot be renewed");
            }
        }
    }

    /// After `docker swarm init --force-new-cluster`: this manager is the only one, at its address.
    pub(crate) async fn found_anew(&self) -> Result<()> {
        let standing = self.standing();
        let advertised: SocketAddr = standing.advertise_addr.parse().map_err(Error::internal)?;
        let others: Vec<String> = self
            .nodes(&Default::default())?
            .iter()
            .filter(|n| n.status.manager.is_some())
            .map(|n| n.spec.swarm.node_id.clone())
            .filter(|id| id != self.node_id())
            .collect();
        for other in others {
            // Managers of the group that was: they have to join anew.
            self.change_node(&other, |node| {
                node.spec.swarm.role = NodeRole::Worker;
                node.status.manager = None;
            })
            .await?;
        }
        self.change_node(self.node_id(), |node| {
            node.status.addr = advertised.ip().to_string();
            if let Some(manager) = &mut node.status.manager {
                manager.addr = advertised.to_string();
            }
        })
        .await
    }
}

/// The roots that nodes are to trust: the authority's, and while it is being replaced the one before.
pub(crate) fn roots(cluster: &SwarmCluster) -> String {
    format!("{}{}", cluster.status.ca_cert, cluster.status.old_ca_cert)
}

/// A node's certificate with what leads from it to the root before.
pub(crate) fn chain(certificate: &str, cluster: &SwarmCluster) -> String {
    format!("{certificate}{}", cluster.status.cross_cert)
}

pub(crate) fn authority(cluster: &SwarmCluster) -> Authority {
    Authority {
        cert: cluster.status.ca_cert.clone(),
        key: cluster.status.ca_key.clone(),
    }
}

/// Replaces the authority when that is asked for. Until all nodes have certificates of the new one, the old one is
/// trusted too, and the new one is introduced by it.
fn rotate_authority(cluster: &mut SwarmCluster, update: &ClusterUpdate) -> Result<bool> {
    let (new, old) = (&update.spec, &cluster.spec);
    let next = if !new.signing_ca_cert.is_empty() && new.signing_ca_cert != cluster.status.ca_cert {
        if update.signing_ca_key.is_empty() {
            return Err(Error::invalid(
                "rotating to a given CA certificate needs its key as well",
            ));
        }
        Authority::from_pem(&new.signing_ca_cert, &update.signing_ca_key)?
    } else if new.force_rotate != old.force_rotate {
        Authority::generate()?
    } else {
        return Ok(false);
    };
    let before = authority(cluster);
    let status = &mut cluster.status;
    status.cross_cert = before.cross_sign(&next)?;
    status.old_ca_cert = before.cert;
    status.root_rotation = true;
    install(status, &next)?;
    Ok(true)
}

/// An address as the API shows it, without a port.
pub(crate) fn host_of(addr: &str) -> String {
    addr.parse::<SocketAddr>()
        .map_or_else(|_| addr.to_owned(), |a: SocketAddr| IpAddr::to_string(&a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_object_names() {
        assert_eq!(safe_name("My_Host.local"), "my-host.local");
        assert_eq!(safe_name("__"), "node");
        assert_eq!(safe_name(""), "node");
    }

    #[test]
    fn pools_are_checked() {
        let request = |pools: &[&str], size: u8| InitRequest {
            default_addr_pool: pools.iter().map(|p| p.parse().unwrap()).collect(),
            subnet_size: size,
            ..InitRequest::default()
        };
        assert_eq!(check_pools(&request(&[], 0)).unwrap().1, 24);
        assert!(check_pools(&request(&["10.1.0.0/16", "10.1.2.0/24"], 26)).is_err());
        assert!(check_pools(&request(&["10.1.0.0/26"], 24)).is_err());
        let ingress = ingress_network(&["20.0.0.0/8".parse().unwrap()], 26, Time::now()).unwrap();
        assert_eq!(ingress.spec.subnets[0].subnet.to_string(), "20.0.0.0/26");
    }
}
