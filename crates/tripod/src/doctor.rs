//! `tripod doctor`: what this machine lacks, and how to mend it. Looks only; changes nothing.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::Output;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Well,
    /// Something will not work, or not as well.
    Warning,
    /// Nothing will work.
    Fault,
}

/// What was found, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    what: String,
    remedy: String,
}

fn finding(verdict: Verdict, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        verdict,
        what: what.into(),
        remedy: remedy.into(),
    }
}

fn well(what: impl Into<String>) -> Finding {
    finding(Verdict::Well, what, "")
}

/// What is looked at, read once, so that the judgement is a function of it.
#[derive(Debug, Default, Clone)]
struct Machine {
    root: bool,
    kernel: (u32, u32),
    filesystems: String,
    modules: String,
    mounts: String,
    cgroup_controllers: String,
    rp_filter: String,
    processes: Vec<String>,
    taken: Vec<u16>,
}

impl Machine {
    fn read() -> Self {
        let text = |p: &str| fs::read_to_string(p).unwrap_or_default();
        let release = text("/proc/sys/kernel/osrelease");
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|n| n.parse().unwrap_or(0));
        let wanted = [2377, 4566, 4789, 6443];
        let free =
            |port: u16| TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).is_ok();
        Self {
            root: nix::unistd::geteuid().is_root(),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            filesystems: text("/proc/filesystems"),
            modules: available_modules(release.trim()),
            mounts: text("/proc/mounts"),
            cgroup_controllers: text("/sys/fs/cgroup/cgroup.controllers"),
            rp_filter: text("/proc/sys/net/ipv4/conf/all/rp_filter").trim().to_owned(),
            processes: process_names(),
            taken: wanted.into_iter().filter(|p| !free(*p)).collect(),
        }
    }
}

/// Names of modules that are loaded, built in, or can be loaded.
fn available_modules(release: &str) -> String {
    let dir = Path::new("/lib/modules").join(release);
    let read = |p: &Path| fs::read_to_string(p).unwrap_or_default();
    let mut all = read(Path::new("/proc/modules"));
    all.push_str(&read(&dir.join("modules.builtin")));
    all.push_str(&read(&dir.join("modules.dep")));
    all
}

fn process_names() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| {
            e.file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        .filter_map(|e| fs::read_to_string(e.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

fn judge(m: &Machine) -> Vec<Finding> {
    let mut found = vec![
        match m.root {
            true => well("runs as root"),
            false => finding(Verdict::Fault, "does not run as root", "run it with sudo"),
        },
        match m.kernel >= (5, 10) {
            true => well(format!("kernel {}.{}", m.kernel.0, m.kernel.1)),
            false => finding(
                Verdict::Fault,
                format!("kernel {}.{} is too old", m.kernel.0, m.kernel.1),
                "use Linux 5.10 or newer",
            ),
        },
    ];
    found.push(
        match m.filesystems.contains("overlay") || m.modules.contains("overlay") {
            true => well("overlayfs"),
            false => finding(Verdict::Fault, "overlayfs is missing", "modprobe overlay"),
        },
    );
    found.extend(modules(m));
    found.extend(cgroups(m));
    found.extend(neighbours(m));
    found.extend(m.taken.iter().map(|port| {
        let what = match port {
            2377 => "nodes of a cluster",
            4566 => "the AWS APIs",
            6443 => "the Kubernetes API",
            _ => "traffic between nodes",
        };
        finding(
            Verdict::Warning,
            format!("port {port} ({what}) is in use"),
            "end the program that has it (ss -ltnp), or use `tripod start`, whose nodes have addresses of their own",
        )
    }));
    found
}

/// Kernel features that may be modules. A kernel that tells nothing about modules is not doubted.
fn modules(m: &Machine) -> Vec<Finding> {
    if m.modules.is_empty() {
        return Vec::new();
    }
    let needed = [
        ("nf_tables", "nftables", Verdict::Fault),
        ("veth", "veth", Verdict::Fault),
        ("bridge", "bridges", Verdict::Fault),
        ("nf_conntrack", "connection tracking", Verdict::Fault),
        ("vxlan", "VXLAN (networks across nodes)", Verdict::Warning),
    ];
    needed
        .into_iter()
        .map(|(module, name, verdict)| match m.modules.contains(module) {
            true => well(name),
            false => finding(
                verdict,
                format!("{name} is missing"),
                format!("modprobe {module}"),
            ),
        })
        .collect()
}

fn cgroups(m: &Machine) -> Vec<Finding> {
    let needed = ["cpu", "memory", "pids"];
    let v2: Vec<&str> = m.cgroup_controllers.split_whitespace().collect();
    let v1 = |c: &str| {
        m.mounts
            .lines()
            .any(|l| l.contains(" cgroup ") && l.split([' ', ',', '/']).any(|w| w == c))
    };
    needed
        .into_iter()
        .filter(|c| !v2.contains(c) && !v1(c))
        .map(|c| {
            finding(
                Verdict::Warning,
                format!("the cgroup controller {c} is missing: its limits have no effect"),
                format!("boot with cgroup_enable={c}, or mount cgroup2 at /sys/fs/cgroup"),
            )
        })
        .collect()
}

/// Programs and settings that stand in the way of packets.
fn neighbours(m: &Machine) -> Vec<Finding> {
    let runs = |name: &str| m.processes.iter().any(|p| p == name);
    let mut found = Vec::new();
    if m.rp_filter == "1" {
        found.push(finding(
            Verdict::Warning,
            "reverse path filtering is strict: answers that come in by another interface are dropped",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        ));
    }
    if runs("firewalld") {
        found.push(finding(
            Verdict::Warning,
            "firewalld runs: it may drop what containers send and receive",
            "firewall-cmd --permanent --zone=trusted --add-source=10.0.0.0/8 --add-source=172.16.0.0/12; firewall-cmd --reload",
        ));
    }
    if runs("dockerd") {
        found.push(finding(
            Verdict::Warning,
            "a Docker Engine runs: it has the socket /var/run/docker.sock and drops forwarded packets by default",
            "both work side by side: give Tripod a socket of its own (--host unix:///run/tripod.sock), or use `tripod start`",
        ));
    }
    found
}

/// Looks, tells, and exits with 0 when nothing is a fault.
pub(crate) fn run(output: Output) -> ExitCode {
    let found = judge(&Machine::read());
    if output == Output::Json {
        let list: Vec<_> = found
            .iter()
            .map(|f| {
                let verdict = format!("{:?}", f.verdict).to_lowercase();
                json!({"verdict": verdict, "what": f.what, "remedy": f.remedy})
            })
            .collect();
        println!("{}", json!(list));
    } else {
        for f in &found {
            let mark = match f.verdict {
                Verdict::Well => "ok     ",
                Verdict::Warning => "warning",
                Verdict::Fault => "FAULT  ",
            };
            println!("{mark}  {}", f.what);
            if !f.remedy.is_empty() {
                println!("         {}", f.remedy);
            }
        }
    }
    ExitCode::from(u8::from(found.iter().any(|f| f.verdict == Verdict::Fault)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Machine {
        Machine {
            root: true,
            kernel: (6, 1),
            filesystems: "nodev\toverlay\n".into(),
            modules: "nf_tables veth bridge nf_conntrack vxlan".into(),
            cgroup_controllers: "cpuset cpu io memory pids".into(),
            ..Machine::default()
        }
    }

    fn faults(m: &Machine) -> Vec<String> {
        let bad = judge(m).into_iter().filter(|f| f.verdict != Verdict::Well);
        bad.map(|f| {
            assert!(!f.remedy.is_empty(), "{} has no remedy", f.what);
            f.what
        })
        .collect()
    }

    #[test]
    fn a_good_machine_has_no_faults() {
        assert_eq!(faults(&good()), Vec::<String>::new());
    }

    #[test]
    fn each_lack_is_named_with_a_remedy() {
        type Case = (fn(&mut Machine), &'static str);
        let cases: [Case; 8] = [
            (|m| m.root = false, "root"),
            (|m| m.kernel = (4, 19), "4.19"),
            (|m| m.filesystems.clear(), "overlayfs"),
            (
                |m| m.modules = "veth bridge nf_conntrack vxlan".into(),
                "nftables",
            ),
            (|m| m.cgroup_controllers = "cpu memory".into(), "pids"),
            (|m| m.rp_filter = "1".into(), "strict"),
            (|m| m.processes = vec!["dockerd".into()], "Docker"),
            (|m| m.taken = vec![6443], "6443"),
        ];
        for (break_it, word) in cases {
            let mut m = good();
            break_it(&mut m);
            let found = faults(&m);
            assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
        }
    }

    #[test]
    fn version_one_of_cgroups_will_do() {
        let mut m = good();
        m.cgroup_controllers.clear();
        m.mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                    cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n"
            .into();
        assert_eq!(faults(&m), Vec::<String>::new());
    }
}
