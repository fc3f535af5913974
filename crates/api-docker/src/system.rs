//! `/_ping`, `/version`, `/info`, `/auth`.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA};
use http::{Method, Response};
use serde_json::{Map, Value, json};
use tripod_edge::{empty, full};
use tripod_model::Time;
use tripod_model::container::ContainerStatus;

use crate::call::Call;
use crate::reply::{self, Reply};
use crate::router::{NEWEST, OLDEST};
use crate::wire::system::AuthBody;
use crate::{Docker, swarm, when};

/// The client asks whether the daemon answers, and learns from the headers what it is.
pub(crate) fn ping(docker: &Docker, call: &Call) -> Reply {
    const SWARM: HeaderName = HeaderName::from_static("swarm");
    const BUILDER: HeaderName = HeaderName::from_static("builder-version");
    let head = call.method == Method::HEAD;
    let mut response = Response::new(if head { empty() } else { full("OK") });
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(SWARM, HeaderValue::from_static(swarm::ping(docker)));
    headers.insert(BUILDER, HeaderValue::from_static(""));
    Ok(response)
}

pub(crate) fn version(docker: &Docker) -> Reply {
    let (id, host) = (docker.identity(), docker.host());
    let api = format!("1.{}", NEWEST.0);
    let oldest = format!("1.{}", OLDEST.0);
    let runtime = docker.agent().runtime().info();
    reply::json(&json!({
        "Platform": { "Name": "Tripod" },
        "Components": [
            {
                "Name": "Engine", "Version": id.version,
                "Details": {
                    "ApiVersion": api, "MinAPIVersion": oldest, "Arch": host.architecture, "Os": "linux",
                    "BuildTime": id.build_time, "Experimental": "false", "GitCommit": id.commit, "GoVersion": "",
                    "KernelVersion": host.kernel,
                },
            },
            {
                "Name": runtime.default_runtime, "Version": id.version, "Details": { "GitCommit": id.commit },
            },
        ],
        "Version": id.version, "ApiVersion": api, "MinAPIVersion": oldest, "GitCommit": id.commit, "GoVersion": "",
        "Os": "linux", "Arch": host.architecture, "KernelVersion": host.kernel, "Experimental": false,
        "BuildTime": id.build_time,
    }))
}

pub(crate) async fn info(docker: &Docker) -> Reply {
    let (identity, host) = (docker.identity(), docker.host());
    let mut info = json!({
        "ID": identity.id,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", backing(&identity.root)], ["Supports d_type", "true"]],
        "DockerRootDir": identity.root,
        "Plugins": {
            "Volume": ["local"], "Network": ["bridge", "host", "null", "overlay"], "Authorization": null,
            "Log": ["json-file", "local"],
        },
        "IPv4Forwarding": std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|s| s.trim() == "1"),
        "Debug": tracing::enabled!(tracing::Level::DEBUG),
        "NFd": std::fs::read_dir("/proc/self/fd").map_or(-1, |d| d.count() as i64),
        "NGoroutines": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        "NEventsListener": docker.listeners(),
        "SystemTime": when::rfc3339(Time::now()),
        "LoggingDriver": "json-file",
        "KernelVersion": host.kernel, "OperatingSystem": host.operating_system, "OSVersion": host.os_version,
        "OSType": "linux", "Architecture": host.machine, "NCPU": host.cpus, "MemTotal": host.memory,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": null, "AllowNondistributableArtifactsHostnames": null,
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "IndexConfigs": { "docker.io": { "Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true } },
            "Mirrors": null,
        },
        "GenericResources": null,
        "HttpProxy": proxy("http_proxy"), "HttpsProxy": proxy("https_proxy"), "NoProxy": proxy("no_proxy"),
        "Name": host.hostname, "Labels": identity.labels, "ExperimentalBuild": false,
        "ServerVersion": identity.version,
        "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "tripod",
        "ContainerdCommit": { "ID": "" }, "RuncCommit": { "ID": "" }, "InitCommit": { "ID": "" },
        "ProductLicense": "Apache-2.0",
        "DefaultAddressPools": pools(docker),
        "FirewallBackend": { "Driver": "nftables" },
        "DiscoveredDevices": [], "CDISpecDirs": [], "Containerd": null,
        "Swarm": swarm::info(docker).await,
    });
    let images = docker.agent().images().list().await?.len();
    if let Some(info) = info.as_object_mut() {
        info.insert("Images".into(), images.into());
        counts(docker, info);
        runtime(docker, info);
    }
    reply::json(&info)
}

fn counts(docker: &Docker, info: &mut Map<String, Value>) {
    let (mut running, mut paused) = (0, 0);
    let all = docker.agent().containers();
    for c in &all {
        match c.state.status {
            ContainerStatus::Running | ContainerStatus::Restarting => running += 1,
            ContainerStatus::Paused => paused += 1,
            _ => {}
        }
    }
    info.insert("Containers".into(), all.len().into());
    info.insert("ContainersRunning".into(), running.into());
    info.insert("ContainersPaused".into(), paused.into());
    info.insert("ContainersStopped".into(), (all.len() - running - paused).into());
}

/// What the runtime tells: cgroups, features of the kernel, security options, warnings.
fn runtime(docker: &Docker, info: &mut Map<String, Value>) {
    let runtime = docker.agent().runtime().info();
    for feature in [
        "MemoryLimit",
        "SwapLimit",
        "KernelMemoryTCP",
        "CpuCfsPeriod",
        "CpuCfsQuota",
        "CPUShares",
        "CPUSet",
        "PidsLimit",
        "OomKillDisable",
    ] {
        let has = runtime
            .features
            .iter()
            .any(|(name, has)| *name == feature && *has);
        info.insert(feature.into(), has.into());
    }
    let runtimes: Map<String, Value> = runtime
        .runtimes
        .iter()
        .map(|(name, path)| (name.clone(), json!({ "path": path })))
        .collect();
    info.insert("Runtimes".into(), runtimes.into());
    info.insert("DefaultRuntime".into(), runtime.default_runtime.into());
    info.insert("CgroupDriver".into(), runtime.cgroup_driver.into());
    info.insert("CgroupVersion".into(), runtime.cgroup_version.into());
    info.insert("SecurityOptions".into(), runtime.security_options.into());
    info.insert("Warnings".into(), runtime.warnings.into());
}

fn pools(docker: &Docker) -> Value {
    let own = &docker.agent().options().address_pools;
    let pools = if own.is_empty() {
        tripod_model::ipam::local_pools()
    } else {
        own.clone()
    };
    pools
        .iter()
        .map(|(base, size)| json!({ "Base": base.to_string(), "Size": size }))
        .collect()
}

fn proxy(name: &str) -> String {
    std::env::var(name)
        .or_else(|_| std::env::var(name.to_uppercase()))
        .unwrap_or_default()
}

/// The kind of filesystem under the data root, in the kernel's words.
fn backing(root: &str) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|l| {
        let mut f = l.split(' ').skip(1);
        Some((f.next()?, f.next()?))
    });
    let above = fields.filter(|(at, _)| std::path::Path::new(root).starts_with(at));
    above
        .max_by_key(|(at, _)| at.len())
        .map_or_else(String::new, |(_, kind)| kind.to_owned())
}

/// Checks credentials against their registry.
pub(crate) async fn auth(docker: &Docker, call: Call) -> Reply {
    let body: AuthBody = call.json().await?;
    let status = docker.agent().images().login(&body.into()).await?;
    reply::json(&json!({ "Status": status, "IdentityToken": "" }))
}
