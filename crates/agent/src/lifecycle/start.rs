//! Starting a container: root filesystem, network, files, process; undone in full when a step fails.

use std::path::PathBuf;
use std::sync::Arc;

use tripod_model::container::{ContainerState, ContainerStatus, InjectedFile};
use tripod_model::network::{Endpoint, PublishedPort};
use tripod_model::{Error, ErrorKind, Result};

use crate::ports::{PortRequest, ResolvedMount, SANDBOX_MODE, SandboxDns, StartRequest};
use crate::record::{ContainerRecord, Owner};
use crate::store::Table;
use crate::table::Container;
use crate::{Agent, files};

/// The network that was made for a start.
struct NetworkUp {
    netns: Option<PathBuf>,
    endpoints: Vec<Endpoint>,
    ports: Vec<PublishedPort>,
    resolv: String,
}

impl Agent {
    /// Starts a container that does not run. `NotModified` when it does.
    pub async fn start_container(&self, reference: &str) -> Result<()> {
        self.start_container_with(reference, Vec::new()).await
    }

    /// Starts a container with files put into it (secrets and configs).
    pub async fn start_container_with(&self, reference: &str, injected: Vec<InjectedFile>) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let busy = container.busy.lock().await;
        let record = container.get();
        match record.state.status {
            ContainerStatus::Running => return Err(Error::not_modified("container already running")),
            ContainerStatus::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            ContainerStatus::Removing | ContainerStatus::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            _ => {}
        }
        container.modify(|r| {
            r.state.restart_count = 0;
            r.state.stopped_by_user = false;
        });
        let started = self.start_locked(&container, injected).await;
        drop(busy);
        if started.is_err() && record.spec.auto_remove && record.owner == Owner::Local {
            self.remove_ended(&record).await;
        }
        started
    }

    /// Starts a container whose lock the caller holds.
    pub(crate) async fn start_locked(
        &self,
        container: &Arc<Container>,
        injected: Vec<InjectedFile>,
    ) -> Result<()> {
        // The exit code of a container that never ran tells the client why (docker run's 125 to 127).
        let record = container.modify(|r| {
            r.run += 1;
            r.wanted = true;
            r.resume = false;
            r.state.error.clear();
        });
        let token = container.new_run_token();
        match self.start_steps(&record, injected).await {
            Ok((started, up)) => {
                let record = container.modify(|r| {
                    r.endpoints = up.endpoints;
                    r.ports = up.ports;
                    r.warnings.clone_from(&started.warnings);
                    r.state = ContainerState {
                        status: ContainerStatus::Running,
                        pid: started.pid,
                        exit_code: 0,
                        started_at: Some(started.at),
                        health: crate::health::initial(&r.spec),
                        error: String::new(),
                        oom_killed: false,
                        ..r.state.clone()
                    };
                });
                // On disk before the client hears of it: a daemon killed right after adopts the run.
                self.inner
                    .store
                    .put(Table::Containers, &record.id, &*record)
                    .await?;
                if let Err(e) = self.refresh_names(&record).await {
                    tracing::warn!("names of {} are not served: {e}", record.name);
                }
                self.container_event(&record, "start", &[]);
                self.watch_health(&record, token);
                Ok(())
            }
            Err(e) => {
                let record = container.modify(|r| {
                    r.wanted = false;
                    r.state.error.clone_from(&e.message);
                    r.state.exit_code = failure_code(&e);
                    if r.state.status == ContainerStatus::Restarting {
                        r.state.status = ContainerStatus::Exited;
                    }
                });
                self.inner
                    .store
                    .put(Table::Containers, &record.id, &*record)
                    .await?;
                Err(e)
            }
        }
    }

    async fn start_steps(
        &self,
        record: &ContainerRecord,
        injected: Vec<InjectedFile>,
    ) -> Result<(crate::ports::Started, NetworkUp)> {
        let (rootfs, network) = tokio::join!(self.images().mount(&record.id), self.network_up(record));
        let (rootfs, up) = match (rootfs, network) {
            (Ok(rootfs), Ok(up)) => (rootfs, up),
            (rootfs, network) => {
                let failure = rootfs.as_ref().err().or(network.as_ref().err()).cloned();
                if let Ok(up) = &network {
                    self.network_down(record, &up.endpoints).await;
                }
                if rootfs.is_ok() {
                    let _ = self.images().unmount(&record.id).await;
                }
                return Err(failure.unwrap_or_else(|| Error::internal("start failed")));
            }
        };
        let started = async {
            let mut mounts = self.resolved_mounts(record).await?;
            let started = async {
                mounts.extend(self.own_mounts(record, &up, injected).await?);
                let request = StartRequest {
                    id: record.id.clone(),
                    run: record.run,
                    spec: self.with_link_variables(record),
                    rootfs: rootfs.path,
                    netns: up.netns.clone(),
                    mounts,
                    dir: PathBuf::from(&record.dir),
                };
                self.runtime().start(request).await
            }
            .await;
            if started.is_err() {
                self.release_mounts(record).await;
                self.withdraw_files(record);
            }
            started
        }
        .await;
        match started {
            Ok(started) => Ok((started, up)),
            Err(e) => {
                self.network_down(record, &up.endpoints).await;
                let _ = self.images().unmount(&record.id).await;
                Err(e)
            }
        }
    }

    /// The files that the agent itself puts into the container.
    async fn own_mounts(
        &self,
        record: &ContainerRecord,
        up: &NetworkUp,
        injected: Vec<InjectedFile>,
    ) -> Result<Vec<ResolvedMount>> {
        let settled = ContainerRecord {
            endpoints: up.endpoints.clone(),
            ..record.clone()
        };
        let hosts = files::hosts(
            &settled,
            record.spec.network.mode == "host",
            &self.link_hosts(record)?,
        );
        let mut mounts = files::write(&settled, &hosts, &up.resolv)?;
        if !injected.is_empty() {
            mounts.extend(self.inject(record, injected).await?);
        }
        Ok(mounts)
    }

    /// Lines for `/etc/hosts` of legacy links on the default bridge.
    fn link_hosts(&self, record: &ContainerRecord) -> Result<Vec<(std::net::IpAddr, String)>> {
        let mut lines = Vec::new();
        for link in &record.spec.network.links {
            let (target, alias) = link.split_once(':').unwrap_or((link, link));
            let Ok(other) = self.container(target) else {
                continue;
            };
            if let Some(net) = other.endpoints.iter().find_map(|e| e.ipv4) {
                lines.push((net.addr(), format!("{alias} {} {}", other.short_id(), other.name)));
            }
        }
        Ok(lines)
    }

    async fn network_up(&self, record: &ContainerRecord) -> Result<NetworkUp> {
        let mode = record.spec.network.mode.as_str();
        if let Some(other) = mode.strip_prefix("container:") {
            return self.join_network(record, other).await;
        }
        if let Some(sandbox) = mode.strip_prefix(SANDBOX_MODE) {
            // It exists: this only tells its path. What it resolves is in files of the pod.
            let netns = self.net().create_sandbox(sandbox, &SandboxDns::default()).await?;
            return Ok(NetworkUp {
                netns: Some(netns),
                endpoints: Vec::new(),
                ports: Vec::new(),
                resolv: String::new(),
            });
        }
        if mode == "host" {
            let (resolv, _) = files::resolv_conf(&record.spec, false);
            return Ok(NetworkUp {
                netns: None,
                endpoints: record.endpoints.clone(),
                ports: Vec::new(),
                resolv,
            });
        }
        let endpoints = self.settle_endpoints(record).await?;
        let embedded = self.has_embedded_dns(&endpoints);
        let (resolv, upstream) = files::resolv_conf(&record.spec, embedded);
        let dns = SandboxDns { embedded, upstream };
        let real: Vec<Endpoint> = endpoints.iter().filter(|e| e.ipv4.is_some()).cloned().collect();
        let up = async {
            let netns = self.net().create_sandbox_with(&record.id, &dns, &real).await?;
            let ports = self.publish_ports(record, &real).await?;
            Ok::<_, Error>((netns, ports))
        };
        match up.await {
            Ok((netns, ports)) => Ok(NetworkUp {
                netns: Some(netns),
                endpoints,
                ports,
                resolv,
            }),
            Err(e) => {
                self.network_down(record, &endpoints).await;
                Err(e)
            }
        }
    }

    async fn join_network(&self, record: &ContainerRecord, other: &str) -> Result<NetworkUp> {
        let other = self.container(other)?;
        if !other.is_running() {
            return Err(Error::conflict(format_args!(
                "cannot join network namespace of a non running container: container {} is {}",
                other.name,
                other.state.status.as_str()
            )));
        }
        let embedded = self.has_embedded_dns(&other.endpoints);
        let (resolv, upstream) = files::resolv_conf(&record.spec, embedded);
        let netns = match other.spec.network.mode.as_str() {
            "host" => None,
            // It exists: this only tells its path.
            _ => Some(
                self.net()
                    .create_sandbox(&other.id, &SandboxDns { embedded, upstream })
                    .await?,
            ),
        };
        Ok(NetworkUp {
            netns,
            endpoints: Vec::new(),
            ports: Vec::new(),
            resolv,
        })
    }

    async fn publish_ports(
        &self,
        record: &ContainerRecord,
        endpoints: &[Endpoint],
    ) -> Result<Vec<PublishedPort>> {
        let spec = &record.spec.network;
        let mut requests: Vec<PortRequest> = Vec::new();
        let any = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        for b in &spec.port_bindings {
            requests.push(PortRequest {
                port: PublishedPort {
                    host_ip: b.host_ip.unwrap_or(any),
                    host_port: b.host_port,
                    target_port: b.target.port,
                    protocol: b.target.protocol,
                },
                host_port_end: b.host_port_end,
            });
        }
        if spec.publish_all {
            for port in &record.spec.exposed_ports {
                if !spec.port_bindings.iter().any(|b| b.target == *port) {
                    let port = PublishedPort {
                        host_ip: any,
                        host_port: 0,
                        target_port: port.port,
                        protocol: port.protocol,
                    };
                    requests.push(PortRequest {
                        port,
                        host_port_end: 0,
                    });
                }
            }
        }
        let through = endpoints
            .iter()
            .find(|e| e.default_route)
            .or_else(|| endpoints.first());
        match through {
            Some(endpoint) if !requests.is_empty() => {
                self.net().publish(&record.id, endpoint, &requests).await.map_err(|e| Error {
                    message: format!(
                        "failed to set up container networking: driver failed programming external connectivity on \
                         endpoint {} ({}): {}",
                        record.name, endpoint.id, e.message
                    ),
                    ..e
                })
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Takes the sandbox away and gives addresses back.
    pub(crate) async fn network_down(&self, record: &ContainerRecord, endpoints: &[Endpoint]) {
        let mode = record.spec.network.mode.as_str();
        if has_own_sandbox(mode) {
            if let Err(e) = self.net().remove_sandbox(&record.id).await {
                tracing::warn!("the sandbox of {} stays: {e}", record.name);
            }
            self.release_addresses(&record.owner, endpoints).await;
        }
    }
}

/// Whether a container has a network namespace of its own.
pub(super) fn has_own_sandbox(mode: &str) -> bool {
    mode != "host" && !mode.starts_with("container:") && !mode.starts_with(SANDBOX_MODE)
}

/// The exit status that Docker gives a container whose command could not be started.
fn failure_code(e: &Error) -> i64 {
    let text = e.message.to_ascii_lowercase();
    match e.kind {
        ErrorKind::Invalid if text.contains("not found") || text.contains("no such file") => 127,
        ErrorKind::Invalid if text.contains("permission denied") || text.contains("is a directory") => 126,
        _ => 128,
    }
}
