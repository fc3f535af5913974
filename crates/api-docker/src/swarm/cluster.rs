//! `/swarm` and the `Swarm` part of `/info`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use serde_json::{Value, json};
use tripod_engine::{ClusterUpdate, Engine, InitRequest, JoinRequest, SwarmInfo};
use tripod_model::node::{Availability, NodeState};
use tripod_model::swarm::{Driver, SwarmCluster, SwarmSpec};
use tripod_model::{Error, Result};

use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, when};

/// How long the answer to init waits for the node to be ready.
const READY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

pub(super) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    let engine = &docker.swarm().engine;
    match (call.method.as_str(), parts) {
        ("GET", []) => reply::json(&inspect(&engine.manager()?.swarm_inspect()?)),
        ("POST", ["init"]) => init(docker, call.json().await?).await,
        ("POST", ["join"]) => {
            let body: JoinBody = call.json().await?;
            engine.swarm_join(body.request()?).await?;
            reply::status(http::StatusCode::OK)
        }
        ("POST", ["leave"]) => {
            engine.swarm_leave(call.query.flag("force")).await?;
            reply::status(http::StatusCode::OK)
        }
        ("POST", ["update"]) => update(engine, call).await,
        ("GET", ["unlockkey"]) => reply::json(&json!({"UnlockKey": engine.manager()?.unlock_key()?})),
        ("POST", ["unlock"]) => {
            let body: UnlockBody = call.json().await?;
            engine.swarm_unlock(&body.unlock_key).await?;
            reply::status(http::StatusCode::OK)
        }
        _ => Err(Fault::page_not_found()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InitBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    data_path_port: u32,
    default_addr_pool: Vec<String>,
    subnet_size: u32,
    force_new_cluster: bool,
    spec: SpecBody,
    auto_lock_managers: bool,
    availability: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct JoinBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    remote_addrs: Vec<String>,
    join_token: String,
    availability: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UnlockBody {
    unlock_key: String,
}

/// `SwarmSpec`; fields that are absent keep what is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct SpecBody {
    name: String,
    labels: Option<BTreeMap<String, String>>,
    orchestration: Orchestration,
    raft: Raft,
    dispatcher: Dispatcher,
    #[serde(rename = "CAConfig")]
    ca_config: CaConfig,
    task_defaults: TaskDefaults,
    encryption_config: EncryptionConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Orchestration {
    task_history_retention_limit: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Raft {
    snapshot_interval: u64,
    keep_old_snapshots: Option<u64>,
    log_entries_for_slow_followers: u64,
    election_tick: i64,
    heartbeat_tick: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Dispatcher {
    heartbeat_period: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CaConfig {
    node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs")]
    external_cas: Vec<Value>,
    #[serde(rename = "SigningCACert")]
    signing_ca_cert: String,
    #[serde(rename = "SigningCAKey")]
    signing_ca_key: String,
    force_rotate: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct TaskDefaults {
    log_driver: Option<LogDriver>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct LogDriver {
    name: String,
    options: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EncryptionConfig {
    auto_lock_managers: Option<bool>,
}

impl SpecBody {
    /// The settings, on top of those that are.
    fn over(self, base: &SwarmSpec) -> (SwarmSpec, String) {
        let or = |value: i64, base: i64| if value == 0 { base } else { value };
        let or_u = |value: u64, base: u64| if value == 0 { base } else { value };
        let spec = SwarmSpec {
            name: if self.name.is_empty() {
                base.name.clone()
            } else {
                self.name
            },
            labels: self.labels.unwrap_or_else(|| base.labels.clone()),
            task_history_retention: self
                .orchestration
                .task_history_retention_limit
                .unwrap_or(base.task_history_retention),
            snapshot_interval: or_u(self.raft.snapshot_interval, base.snapshot_interval),
            keep_old_snapshots: self.raft.keep_old_snapshots.unwrap_or(base.keep_old_snapshots),
            log_entries_for_slow_followers: or_u(
                self.raft.log_entries_for_slow_followers,
                base.log_entries_for_slow_followers,
            ),
            election_tick: or(self.raft.election_tick, base.election_tick),
            heartbeat_tick: or(self.raft.heartbeat_tick, base.heartbeat_tick),
            heartbeat_period: or(self.dispatcher.heartbeat_period, base.heartbeat_period),
            node_cert_expiry: or(self.ca_config.node_cert_expiry, base.node_cert_expiry),
            force_rotate: or_u(self.ca_config.force_rotate, base.force_rotate),
            external_cas: self.ca_config.external_cas,
            signing_ca_cert: self.ca_config.signing_ca_cert,
            autolock: self.encryption_config.auto_lock_managers.unwrap_or(base.autolock),
            log_driver: self.task_defaults.log_driver.map_or_else(
                || base.log_driver.clone(),
                |d| {
                    (!d.name.is_empty()).then_some(Driver {
                        name: d.name,
                        options: d.options,
                    })
                },
            ),
        };
        (spec, self.ca_config.signing_ca_key)
    }
}

impl JoinBody {
    fn request(self) -> Result<JoinRequest> {
        Ok(JoinRequest {
            listen_addr: self.listen_addr,
            advertise_addr: self.advertise_addr,
            data_path_addr: self.data_path_addr,
            remote_addrs: self.remote_addrs,
            join_token: self.join_token,
            availability: availability(&self.availability)?,
        })
    }
}

/// The word for whether a node takes pods.
pub(super) fn availability(word: &str) -> Result<Availability> {
    match word {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(Error::invalid(format_args!("invalid Availability: \"{other}\"")).at("Availability")),
    }
}

async fn init(docker: &Docker, body: InitBody) -> Reply {
    let interfaces = docker.agent().net().host_addresses().await?;
    let mut pools = Vec::with_capacity(body.default_addr_pool.len());
    for pool in &body.default_addr_pool {
        pools.push(pool.parse::<Ipv4Net>().map_err(|_| {
            Fault::bad(format_args!(
                "invalid default address pool \"{pool}\": invalid CIDR address"
            ))
        })?);
    }
    let subnet_size = u8::try_from(body.subnet_size)
        .ok()
        .filter(|s| *s <= 32)
        .ok_or_else(|| Fault::bad(format_args!("invalid subnet size: {}", body.subnet_size)))?;
    let data_path_port = u16::try_from(body.data_path_port)
        .ok()
        .filter(|p| *p == 0 || (1024..=49151).contains(p))
        .ok_or_else(|| Fault::bad("Datapath port number is not in the valid range (1024-49151)"))?;
    let base = SwarmSpec {
        autolock: body.auto_lock_managers,
        ..SwarmSpec::default()
    };
    let (spec, signing_ca_key) = body.spec.over(&base);
    let listen_addr = resolve(&body.listen_addr, &interfaces, "ListenAddr")?;
    let advertise_addr = match body.advertise_addr.as_str() {
        "" if is_unspecified(&listen_addr) => detect(&interfaces)?,
        text => resolve(text, &interfaces, "AdvertiseAddr")?,
    };
    let request = InitRequest {
        listen_addr,
        advertise_addr,
        data_path_addr: resolve(&body.data_path_addr, &interfaces, "DataPathAddr")?,
        data_path_port,
        default_addr_pool: pools,
        subnet_size,
        force_new_cluster: body.force_new_cluster,
        spec,
        signing_ca_key,
        availability: availability(&body.availability)?,
    };
    let engine = &docker.swarm().engine;
    let id = engine.swarm_init(request).await?;
    // The client's next question is often for the node: it is answered when the node has its session.
    let _ = tokio::time::timeout(READY_PATIENCE, ready(engine, &id)).await;
    reply::json(&id)
}

/// Returns when a node is ready.
async fn ready(engine: &Engine, id: &str) -> Result<()> {
    let manager = engine.manager()?;
    let mut changes = manager.view_revision();
    while manager.node(id)?.status.state != NodeState::Ready {
        changes.changed().await.map_err(Error::internal)?;
    }
    Ok(())
}

fn is_unspecified(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    host.parse::<IpAddr>().is_ok_and(|a| a.is_unspecified()) || listen.is_empty()
}

/// `ADDRESS[:port]` as it is, `INTERFACE[:port]` as the interface's only address.
fn resolve(text: &str, interfaces: &[(String, IpNet)], field: &str) -> Result<String, Fault> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let addresses: Vec<&IpNet> = interfaces
        .iter()
        .filter(|(name, _)| name == host)
        .map(|(_, a)| a)
        .collect();
    let v4: Vec<_> = addresses.iter().filter(|a| a.addr().is_ipv4()).collect();
    let found = match (addresses.len(), v4.as_slice()) {
        (0, _) => return Ok(text.to_owned()),
        (_, [one]) => one.addr(),
        (1, _) => addresses[0].addr(),
        _ => {
            return Err(Fault::bad(format_args!(
                "interface {host} has more than one IPv4 address; specify one as {field}"
            )));
        }
    };
    Ok(match port {
        Some(port) => format!("{found}:{port}"),
        None => found.to_string(),
    })
}

/// The address of this machine, when it has only one that others could know.
fn detect(interfaces: &[(String, IpNet)]) -> Result<String, Fault> {
    let ours = |name: &str| {
        name == "lo"
            || ["docker", "br-", "veth", "tripod"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let mut found: Option<(&str, IpAddr)> = None;
    for (name, net) in interfaces.iter().filter(|(n, a)| !ours(n) && a.addr().is_ipv4()) {
        if let Some((other, first)) = found {
            let text = if other == name {
                format!(
                    "could not choose an IP address to advertise since this system has multiple addresses on interface {name} ({first} and {})",
                    net.addr()
                )
            } else {
                format!(
                    "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({first} on {other} and {} on {name})",
                    net.addr()
                )
            };
            return Err(Fault::bad(format_args!(
                "{text} - specify one with --advertise-addr"
            )));
        }
        found = Some((name, net.addr()));
    }
    found.map(|(_, address)| address.to_string()).ok_or_else(|| {
        Fault::bad("could not find the system's IP address - specify one with --advertise-addr")
    })
}

async fn update(engine: &Engine, call: Call) -> Reply {
    let version = super::version(&call)?;
    let (rotate_worker_token, rotate_manager_token, rotate_unlock_key) = (
        call.query.flag("rotateWorkerToken"),
        call.query.flag("rotateManagerToken"),
        call.query.flag("rotateManagerUnlockKey"),
    );
    let manager = engine.manager()?;
    let body: SpecBody = call.json().await?;
    let (spec, signing_ca_key) = body.over(&manager.swarm_inspect()?.spec);
    let update = ClusterUpdate {
        spec,
        signing_ca_key,
        rotate_worker_token,
        rotate_manager_token,
        rotate_unlock_key,
    };
    manager.swarm_update(version, update).await?;
    reply::status(http::StatusCode::OK)
}

/// `ClusterInfo`: what `/info` shows of the cluster.
fn cluster_info(c: &SwarmCluster) -> Value {
    let created = when::or_never(c.metadata.creation_timestamp);
    json!({
        "ID": c.metadata.name,
        "Version": {"Index": c.metadata.revision()},
        "CreatedAt": created,
        "UpdatedAt": c.status.updated_at.map_or(created, when::rfc3339),
        "Spec": spec(&c.spec),
        "TLSInfo": {
            "TrustRoot": c.status.ca_cert,
            "CertIssuerSubject": c.status.issuer_subject,
            "CertIssuerPublicKey": c.status.issuer_public_key,
        },
        "RootRotationInProgress": c.status.root_rotation,
        "DefaultAddrPool": c.status.default_addr_pool,
        "SubnetSize": c.status.subnet_size,
        "DataPathPort": c.status.data_path_port,
    })
}

fn inspect(c: &SwarmCluster) -> Value {
    let mut value = cluster_info(c);
    value["JoinTokens"] = json!({"Worker": c.status.worker_token, "Manager": c.status.manager_token});
    value
}

fn spec(s: &SwarmSpec) -> Value {
    let log_driver = s
        .log_driver
        .as_ref()
        .map(|d| json!({"Name": d.name, "Options": d.options}));
    let mut ca = json!({"NodeCertExpiry": s.node_cert_expiry});
    if s.force_rotate > 0 {
        ca["ForceRotate"] = s.force_rotate.into();
    }
    if !s.external_cas.is_empty() {
        ca["ExternalCAs"] = json!(s.external_cas);
    }
    if !s.signing_ca_cert.is_empty() {
        ca["SigningCACert"] = json!(s.signing_ca_cert);
    }
    let mut defaults = json!({});
    if let Some(driver) = log_driver {
        defaults["LogDriver"] = driver;
    }
    json!({
        "Name": s.name,
        "Labels": s.labels,
        "Orchestration": {"TaskHistoryRetentionLimit": s.task_history_retention},
        "Raft": {
            "SnapshotInterval": s.snapshot_interval,
            "KeepOldSnapshots": s.keep_old_snapshots,
            "LogEntriesForSlowFollowers": s.log_entries_for_slow_followers,
            "ElectionTick": s.election_tick,
            "HeartbeatTick": s.heartbeat_tick,
        },
        "Dispatcher": {"HeartbeatPeriod": s.heartbeat_period},
        "CAConfig": ca,
        "TaskDefaults": defaults,
        "EncryptionConfig": {"AutoLockManagers": s.autolock},
    })
}

/// The `Swarm` part of `/info`.
pub(super) fn info(engine: &Engine) -> Value {
    let SwarmInfo {
        state,
        node_id,
        node_addr,
        control_available,
        error,
        remote_managers,
        nodes,
        managers,
        cluster,
    } = engine.info();
    let remote: Vec<Value> = remote_managers
        .iter()
        .map(|m| json!({"NodeID": m.node_id, "Addr": m.addr}))
        .collect();
    let mut value = json!({
        "NodeID": node_id,
        "NodeAddr": node_addr,
        "LocalNodeState": state.as_str(),
        "ControlAvailable": control_available,
        "Error": error,
        "RemoteManagers": if remote.is_empty() { Value::Null } else { remote.into() },
    });
    if let Some(cluster) = cluster {
        value["Nodes"] = nodes.into();
        value["Managers"] = managers.into();
        value["Cluster"] = cluster_info(&cluster);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        let interfaces = |list: &[(&str, &str)]| -> Vec<(String, IpNet)> {
            list.iter()
                .map(|(n, a)| ((*n).to_owned(), a.parse().unwrap()))
                .collect()
        };
        let one = interfaces(&[
            ("lo", "127.0.0.1/8"),
            ("eth0", "10.1.2.3/24"),
            ("docker0", "172.17.0.1/16"),
        ]);
        assert_eq!(detect(&one).unwrap(), "10.1.2.3");
        assert_eq!(resolve("eth0:2377", &one, "ListenAddr").unwrap(), "10.1.2.3:2377");
        assert_eq!(
            resolve("10.9.9.9:2377", &one, "ListenAddr").unwrap(),
            "10.9.9.9:2377"
        );
        let two = interfaces(&[("eth0", "10.1.2.3/24"), ("eth1", "10.2.2.3/24")]);
        assert!(
            detect(&two)
                .unwrap_err()
                .message
                .contains("multiple addresses on different interfaces")
        );
        assert!(detect(&[]).is_err());
    }
}
