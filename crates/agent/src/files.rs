//! Files that the agent gives to every container: `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`, and the
//! secrets and configs of its specification.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tripod_model::Result;
use tripod_model::container::ContainerSpec;

use crate::ports::ResolvedMount;
use crate::record::ContainerRecord;

/// The name server inside containers on user-defined networks.
pub(crate) const EMBEDDED_DNS: &str = "127.0.0.11";

/// The word for the host's own address in `--add-host`.
const HOST_GATEWAY: &str = "host-gateway";

/// `/etc/hosts` of a container.
pub(crate) fn hosts(record: &ContainerRecord, host_mode: bool, extra: &[(IpAddr, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    if host_mode {
        text = std::fs::read_to_string("/etc/hosts").unwrap_or(text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    let gateway = record
        .endpoints
        .iter()
        .find(|e| e.default_route)
        .and_then(|e| e.gateway)
        .or_else(|| host_mode.then_some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));
    for line in &record.spec.network.extra_hosts {
        if let Some((name, address)) = line.split_once([':', '=']) {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let _ = match (address, gateway) {
                (HOST_GATEWAY, Some(gateway)) => writeln!(text, "{gateway}\t{name}"),
                // Without a network there is no way to the host: the name has no address.
                (HOST_GATEWAY, None) => Ok(()),
                _ => writeln!(text, "{address}\t{name}"),
            };
        }
    }
    for (address, names) in extra {
        let _ = writeln!(text, "{address}\t{names}");
    }
    let full = match record.spec.domainname.as_str() {
        "" => record.spec.hostname.clone(),
        domain => format!("{0}.{domain} {0}", record.spec.hostname),
    };
    for endpoint in &record.endpoints {
        if let Some(net) = endpoint.ipv4 {
            let _ = writeln!(text, "{}\t{full}", net.addr());
        }
    }
    text
}

/// `/etc/resolv.conf` of a container, and the servers that names of the outside are asked from.
pub(crate) fn resolv_conf(spec: &ContainerSpec, embedded: bool) -> (String, Vec<IpAddr>) {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let values = |key: &str| -> Vec<String> {
        host.lines()
            .filter_map(|l| l.trim().strip_prefix(key))
            .filter(|rest| rest.starts_with([' ', '\t']))
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let pick = |own: &[String], key: &str| if own.is_empty() { values(key) } else { own.to_vec() };
    let servers = pick(&spec.network.dns, "nameserver");
    let search = pick(&spec.network.dns_search, "search");
    let options = pick(&spec.network.dns_options, "options");
    let mut text = String::new();
    if embedded {
        let _ = writeln!(text, "nameserver {EMBEDDED_DNS}");
    } else {
        // A resolver on the host's loopback cannot be reached from the container.
        let reachable =
            |s: &&String| !spec.network.dns.is_empty() || !s.parse::<IpAddr>().is_ok_and(|a| a.is_loopback());
        for server in servers.iter().filter(reachable) {
            let _ = writeln!(text, "nameserver {server}");
        }
    }
    let search: Vec<&str> = search.iter().map(String::as_str).filter(|s| *s != ".").collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let mut options = options;
    if embedded && !options.iter().any(|o| o.starts_with("ndots:")) {
        options.push("ndots:0".into());
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    (text, servers.iter().filter_map(|s| s.parse().ok()).collect())
}

/// Writes the files and returns how they are mounted. A target that the user mounts something on is left alone.
pub(crate) fn write(record: &ContainerRecord, hosts: &str, resolv: &str) -> Result<Vec<ResolvedMount>> {
    let dir = Path::new(&record.dir);
    let files = [
        ("/etc/hostname", "hostname", format!("{}\n", record.spec.hostname)),
        ("/etc/hosts", "hosts", hosts.to_owned()),
        ("/etc/resolv.conf", "resolv.conf", resolv.to_owned()),
    ];
    let mut mounts = Vec::with_capacity(files.len() + record.spec.files.len());
    for (target, name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text)?;
        if !record
            .mounts
            .iter()
            .any(|m| crate::merge::clean(&m.mount.target) == target)
        {
            mounts.push(bind(path, target, record.spec.security.read_only_rootfs));
        }
    }
    Ok(mounts)
}

/// A bind mount of a file or directory.
pub(crate) fn bind(source: PathBuf, target: &str, read_only: bool) -> ResolvedMount {
    ResolvedMount {
        source: Some(source),
        target: target.to_owned(),
        read_only,
        propagation: String::new(),
        non_recursive: false,
        options: Vec::new(),
    }
}

impl crate::Agent {
    /// Puts secrets and configs into files that are mounted into the container. Secrets go below the directory for
    /// running state, which is kept in memory.
    pub(crate) async fn inject(
        &self,
        record: &ContainerRecord,
        injected: Vec<tripod_model::container::InjectedFile>,
    ) -> Result<Vec<ResolvedMount>> {
        let dir = self.injected_dir(record);
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let mut mounts = Vec::with_capacity(injected.len());
        for (n, file) in injected.iter().enumerate() {
            let path = dir.join(n.to_string());
            std::fs::write(&path, &file.data)?;
            let (uid, gid) = self.owner_ids(record, file).await?;
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(file.mode))?;
            mounts.push(bind(path, &file.path, true));
        }
        Ok(mounts)
    }

    async fn owner_ids(
        &self,
        record: &ContainerRecord,
        file: &tripod_model::container::InjectedFile,
    ) -> Result<(u32, u32)> {
        let or_zero = |s: &str| {
            if s.is_empty() {
                Some(0)
            } else {
                s.parse::<u32>().ok()
            }
        };
        if let (Some(uid), Some(gid)) = (or_zero(&file.uid), or_zero(&file.gid)) {
            return Ok((uid, gid));
        }
        let (uid, gid, _, _) = self
            .images()
            .resolve_user(&record.id, &format!("{}:{}", file.uid, file.gid))
            .await?;
        Ok((uid, gid))
    }

    /// Removes the files of [`Agent::inject`](crate::Agent).
    pub(crate) fn withdraw_files(&self, record: &ContainerRecord) {
        let dir = self.injected_dir(record);
        if dir.exists()
            && let Err(e) = std::fs::remove_dir_all(&dir)
        {
            tracing::warn!("{} stays: {e}", dir.display());
        }
    }

    fn injected_dir(&self, record: &ContainerRecord) -> PathBuf {
        self.options().run_dir.join("files").join(&record.id)
    }
}
