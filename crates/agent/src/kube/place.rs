//! The place of a pod on its node: network namespace and address, shared namespaces, cgroup, files and volumes.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::PoisonError;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tripod_model::network::fabric::POD_NETWORK;
use tripod_model::network::{Endpoint, PublishedPort};
use tripod_model::session::NodeSettings;
use tripod_model::{Error, Result, Time};

use super::desc::{PodDesc, Role};
use super::env::Addresses;
use super::inputs::Inputs;
use super::resources;
use super::volumes::{Failed, Volumes};
use crate::ports::{PortRequest, SandboxDns};
use crate::record::Owner;
use crate::store::Table;
use crate::{Agent, names};

/// Longest host name that the kernel takes.
const HOST_NAME: usize = 64;
/// Name of the directory of the pod's shared memory; no volume is called that.
const SHM: &str = ".shm";

/// What is kept on disk of a pod's place, so that the next daemon finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlaceRecord {
    /// Unique identifier of the pod.
    pub uid: String,
    /// Name of the sandbox: 64 hex digits; empty on the host's network.
    pub sandbox: String,
    /// Its place in the pods' network.
    pub endpoint: Option<Endpoint>,
    /// Ports of the host that lead to it.
    pub ports: Vec<PublishedPort>,
    /// Its cgroup.
    pub cgroup: String,
    /// When it was made.
    pub created: Time,
}

/// A pod's place, made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub sandbox: String,
    pub addresses: Addresses,
    pub hostname: String,
    /// Directory of the kept namespaces `ipc` and `uts`.
    pub namespaces: Option<PathBuf>,
    /// Directory of `hosts`, `resolv.conf`, `hostname`.
    pub etc: PathBuf,
    pub shm: Option<PathBuf>,
    pub volumes: Volumes,
}

/// Why a place could not be made.
pub(super) enum PlaceError {
    /// Reason and message of the event.
    Sandbox(Error),
    Volume(Failed),
}

impl Agent {
    /// Makes a pod's place, or completes what a former daemon left of it.
    pub(super) async fn settle_place(&self, desc: &PodDesc, inputs: &Inputs) -> Result<Place, PlaceError> {
        let node = inputs.node();
        let record = match self.place_of(desc.uid()) {
            Some(record) => record,
            None => self.make_place(desc).await.map_err(PlaceError::Sandbox)?,
        };
        let settled = self.furnish(desc, &node, &record).await;
        let mut place = settled.map_err(PlaceError::Sandbox)?;
        place.volumes = self
            .settle_volumes(desc, inputs, &place.addresses)
            .await
            .map_err(PlaceError::Volume)?;
        Ok(place)
    }

    async fn make_place(&self, desc: &PodDesc) -> Result<PlaceRecord> {
        let mut record = PlaceRecord {
            uid: desc.uid().to_owned(),
            sandbox: String::new(),
            endpoint: None,
            ports: Vec::new(),
            cgroup: resources::cgroup(desc),
            created: Time::now(),
        };
        if !desc.host_network() {
            record.sandbox = names::new_id();
            let endpoint = self.pod_endpoint().await?;
            let up = async {
                let dns = SandboxDns::default();
                let endpoints = std::slice::from_ref(&endpoint);
                self.net()
                    .create_sandbox_with(&record.sandbox, &dns, endpoints)
                    .await?;
                let ports = host_ports(desc);
                if ports.is_empty() {
                    return Ok(Vec::new());
                }
                self.net().publish(&record.sandbox, &endpoint, &ports).await
            };
            match up.await {
                Ok(ports) => record.ports = ports,
                Err(e) => {
                    let _ = self.net().remove_sandbox(&record.sandbox).await;
                    self.release_pod_address(&endpoint);
                    return Err(e);
                }
            }
            record.endpoint = Some(endpoint);
        }
        self.inner.store.put(Table::Places, &record.uid, &record).await?;
        self.keep_place(record.clone());
        Ok(record)
    }

    /// An address of the node's block, or, while the node has no block, of its own bridge.
    async fn pod_endpoint(&self) -> Result<Endpoint> {
        let spec = match self.network(POD_NETWORK) {
            Ok(spec) => spec,
            Err(_) => return Err(Error::unavailable("this node has no addresses for pods yet")),
        };
        self.ensure_real(&spec).await?;
        let pool = spec
            .subnets
            .first()
            .ok_or_else(|| Error::unavailable("the pods' network has no addresses"))?;
        let address = self.take_address(&spec.id, pool, None)?;
        Ok(Endpoint {
            id: names::new_id(),
            network_id: spec.id.clone(),
            network_name: spec.name.clone(),
            ipv4: Some(IpNet::new(address, pool.subnet.prefix_len()).map_err(Error::internal)?),
            ipv6: None,
            gateway: pool.gateway,
            gateway6: None,
            mac: crate::networks::mac_of(address),
            interface: "eth0".into(),
            default_route: true,
            names: Vec::new(),
            aliases: Vec::new(),
            links: Vec::new(),
            fixed_ipv4: true,
            fixed_ipv6: false,
            driver_opts: Default::default(),
            gw_priority: 0,
        })
    }

    fn release_pod_address(&self, endpoint: &Endpoint) {
        if let Some(net) = endpoint.ipv4 {
            self.give_address_back(&endpoint.network_id, net.addr());
        }
    }

    /// Everything but network and volumes.
    async fn furnish(&self, desc: &PodDesc, node: &NodeSettings, record: &PlaceRecord) -> Result<Place> {
        let run = self.pod_run_dir(desc.uid());
        let addresses = Addresses {
            pod: match &record.endpoint {
                Some(e) => e.ipv4.iter().map(IpNet::addr).collect(),
                None => node.addresses.clone(),
            },
            host: node.addresses.clone(),
        };
        let names = HostNames::of(desc, node, &self.options().hostname);
        let etc = run.join("etc");
        std::fs::create_dir_all(&etc)?;
        std::fs::write(etc.join("hostname"), format!("{}\n", names.hostname))?;
        std::fs::write(etc.join("hosts"), hosts(desc, &names, &addresses))?;
        std::fs::write(etc.join("resolv.conf"), resolv_conf(desc, node))?;
        let mut namespaces = None;
        let processes = desc.spec.share_process_namespace.unwrap_or(false);
        if !desc.host_network() || !desc.spec.host_ipc.unwrap_or(false) || processes {
            let dir = run.join("ns");
            self.runtime()
                .keep_namespaces(&dir, &names.hostname, processes)
                .await?;
            namespaces = Some(dir);
        }
        let mut shm = None;
        if !desc.spec.host_ipc.unwrap_or(false) {
            let dir = run.join("memory").join(SHM);
            std::fs::create_dir_all(&dir)?;
            let options = "mode=1777,size=67108864";
            self.inner
                .ports
                .volumes
                .mount_at(&dir, "tmpfs", "shm", options)
                .await?;
            shm = Some(dir);
        }
        self.runtime()
            .group(&record.cgroup, &resources::pod_limits(desc))
            .await?;
        Ok(Place {
            sandbox: record.sandbox.clone(),
            addresses,
            hostname: names.hostname,
            namespaces,
            etc,
            shm,
            volumes: Volumes::default(),
        })
    }

    /// Takes a pod's place away; its volumes stay.
    pub(super) async fn leave_place(&self, uid: &str) {
        let Some(record) = self.place_of(uid) else { return };
        if !record.sandbox.is_empty()
            && let Err(e) = self.net().remove_sandbox(&record.sandbox).await
        {
            tracing::warn!("the network of pod {uid} stays: {e}");
        }
        if let Some(endpoint) = &record.endpoint {
            self.release_pod_address(endpoint);
        }
        let ns = self.pod_run_dir(uid).join("ns");
        if let Err(e) = self.runtime().drop_namespaces(&ns).await {
            tracing::warn!("namespaces of pod {uid} stay: {e}");
        }
        if let Err(e) = self.runtime().remove_group(&record.cgroup).await {
            tracing::debug!("the cgroup of pod {uid} stays: {e}");
        }
        self.forget_place(uid);
        if let Err(e) = self.inner.store.remove(Table::Places, uid).await {
            tracing::error!("the end of pod {uid} cannot be stored: {e}");
        }
    }

    /// Takes over the places that a former daemon made, where the machine still has them.
    pub(crate) async fn recover_places(&self) -> Result<()> {
        let rows = self.inner.store.load::<PlaceRecord>(Table::Places)?;
        let sandboxes = self.net().sandboxes().await?;
        for (uid, record) in rows {
            let there = record.sandbox.is_empty() && self.pod_run_dir(&uid).exists()
                || sandboxes.contains(&record.sandbox);
            if !there {
                self.inner.store.remove(Table::Places, &uid).await?;
                continue;
            }
            if let Some(endpoint) = &record.endpoint {
                self.hold_addresses(std::slice::from_ref(endpoint));
                let endpoints = std::slice::from_ref(endpoint);
                let dns = SandboxDns::default();
                let adopted = self
                    .net()
                    .adopt_sandbox(&record.sandbox, &dns, endpoints, &record.ports);
                if let Err(e) = adopted.await {
                    tracing::warn!("the network of pod {uid} is not what it was: {e}");
                }
            }
            self.keep_place(record);
        }
        Ok(())
    }

    fn give_address_back(&self, network_id: &str, address: IpAddr) {
        let mut all = self
            .inner
            .networks
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = all.get_mut(network_id) {
            addresses.used.remove(&address);
        }
    }

    /// Ends and removes everything of a pod, without ceremony.
    pub(crate) async fn discard_pod(&self, uid: &str) {
        for record in self.containers() {
            let of_pod = matches!(&record.owner, Owner::Pod { uid: u, .. } if u == uid);
            if of_pod {
                let options = crate::RemoveOptions {
                    force: true,
                    volumes: true,
                };
                if let Err(e) = self.remove_container(&record.id, options).await {
                    tracing::warn!("{} stays: {e}", record.name);
                }
            }
        }
        self.leave_place(uid).await;
        self.remove_volumes(uid).await;
    }
}

fn host_ports(desc: &PodDesc) -> Vec<PortRequest> {
    let containers = desc.containers.iter().filter(|c| c.role != Role::Ephemeral);
    let ports = containers.flat_map(|c| c.container.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let host_port = u16::try_from(p.host_port?).ok().filter(|p| *p > 0)?;
            Some(PortRequest {
                port: PublishedPort {
                    host_ip: p
                        .host_ip
                        .as_deref()
                        .and_then(|a| a.parse().ok())
                        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
                    host_port,
                    target_port: u16::try_from(p.container_port).ok()?,
                    protocol: p.protocol.as_deref().unwrap_or("TCP").parse().ok()?,
                },
                host_port_end: 0,
            })
        })
        .collect()
}

/// The names of a pod as a host.
struct HostNames {
    hostname: String,
    /// Host name with the pod's domain, when it has a subdomain.
    full: Option<String>,
}

impl HostNames {
    fn of(desc: &PodDesc, node: &NodeSettings, node_name: &str) -> Self {
        let spec = &desc.spec;
        if desc.host_network() {
            return Self {
                hostname: node_name.to_owned(),
                full: None,
            };
        }
        if let Some(name) = spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
            return Self {
                hostname: name.clone(),
                full: None,
            };
        }
        let own = spec.hostname.as_deref().filter(|h| !h.is_empty());
        let mut short = own.unwrap_or(desc.name()).to_owned();
        short.truncate(HOST_NAME - 1);
        let short = short.trim_end_matches(['-', '.']).to_owned();
        let subdomain = spec.subdomain.as_deref().filter(|s| !s.is_empty());
        let full = subdomain.map(|sub| format!("{short}.{sub}.{}.svc.{}", desc.namespace(), domain(node)));
        let as_full = spec.set_hostname_as_fqdn.unwrap_or(false);
        Self {
            hostname: match &full {
                Some(full) if as_full && full.len() <= HOST_NAME => full.clone(),
                _ => short,
            },
            full,
        }
    }
}

fn domain(node: &NodeSettings) -> &str {
    match node.domain.as_str() {
        "" => "cluster.local",
        domain => domain,
    }
}

fn hosts(desc: &PodDesc, names: &HostNames, addresses: &Addresses) -> String {
    let mut text = match desc.host_network() {
        true => {
            let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            format!("# Kubernetes-managed hosts file (host network).\n{own}")
        }
        false => "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                  fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned(),
    };
    if !desc.host_network() {
        for address in &addresses.pod {
            let short = names.hostname.split('.').next().unwrap_or_default();
            let _ = match &names.full {
                Some(full) => writeln!(text, "{address}\t{full}\t{short}"),
                None => writeln!(text, "{address}\t{}", names.hostname),
            };
        }
    }
    let aliases = desc.spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.clone().unwrap_or_default();
            let _ = writeln!(text, "{}\t{}", alias.ip, names.join("\t"));
        }
    }
    text
}

fn resolv_conf(desc: &PodDesc, node: &NodeSettings) -> String {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    render_resolv_conf(desc, node, &host)
}

/// Name servers, search domains and options of a pod; `host` is the node's own file.
fn render_resolv_conf(desc: &PodDesc, node: &NodeSettings, host: &str) -> String {
    let of_host = |key: &str| -> Vec<String> {
        let lines = host.lines().filter_map(|l| l.trim().strip_prefix(key));
        let words = lines
            .filter(|r| r.starts_with([' ', '\t']))
            .flat_map(str::split_whitespace);
        words.map(str::to_owned).collect()
    };
    let policy = desc.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !desc.host_network(),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let (mut servers, mut search, mut options) = match (policy, cluster) {
        ("None", _) => (Vec::new(), Vec::new(), Vec::new()),
        (_, true) => {
            let domain = domain(node);
            let mut search = vec![
                format!("{}.svc.{domain}", desc.namespace()),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            search.extend(of_host("search"));
            let servers = node.dns.iter().map(ToString::to_string).collect();
            (servers, search, vec!["ndots:5".to_owned()])
        }
        (_, false) => (of_host("nameserver"), of_host("search"), of_host("options")),
    };
    if let Some(own) = &desc.spec.dns_config {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut servers, &own.nameservers);
        add(&mut search, &own.searches);
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            options.retain(|o| o.split(':').next() != Some(name.as_str()));
            options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    text
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
