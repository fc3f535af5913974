//! Facts about this machine, read from `/proc` and `/etc`.

use std::fs;
use std::sync::OnceLock;

/// What of the machine is this node's, where that is not all: processors and bytes of memory.
static SHARE: OnceLock<(Option<u32>, Option<u64>)> = OnceLock::new();

/// What this machine is and has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Host name.
    pub hostname: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Name and version of the distribution.
    pub operating_system: String,
    /// `VERSION_ID` of the distribution.
    pub os_version: String,
    /// Machine, in the kernel's words (`x86_64`).
    pub machine: String,
    /// Machine, in OCI's words (`amd64`).
    pub architecture: String,
    /// Processors online.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
}

impl HostFacts {
    /// Says once, before anything is read, that this node has only so many processors and bytes of memory of the machine.
    ///
    /// # Errors
    /// More than the machine has, as a sentence.
    pub fn set_share(cpus: Option<u32>, memory: Option<u64>) -> Result<(), String> {
        Self::check_share(cpus, memory)?;
        let _ = SHARE.set((cpus, memory));
        Ok(())
    }

    /// Whether the machine has that much.
    ///
    /// # Errors
    /// It has less, as a sentence.
    pub fn check_share(cpus: Option<u32>, memory: Option<u64>) -> Result<(), String> {
        let (all_cpus, all_memory) = (machine_cpus(), memory_total());
        if let Some(n) = cpus.filter(|n| *n == 0 || *n > all_cpus) {
            return Err(format!(
                "Requested cpu count {n} is not between 1 and the available cpus of {all_cpus}"
            ));
        }
        if let Some(n) = memory.filter(|n| *n > all_memory) {
            return Err(format!(
                "Requested memory allocation {}MB is more than your system limit {}MB",
                n >> 20,
                all_memory >> 20
            ));
        }
        Ok(())
    }

    /// Reads them.
    pub fn read() -> Self {
        let line = |path: &str| {
            fs::read_to_string(path)
                .map(|s| s.trim().to_owned())
                .unwrap_or_default()
        };
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os = |key: &str| {
            release
                .lines()
                .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
                .map(|v| v.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        Self {
            hostname: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            operating_system: os("PRETTY_NAME"),
            os_version: os("VERSION_ID"),
            machine: std::env::consts::ARCH.into(),
            architecture: architecture().into(),
            cpus: share().0.unwrap_or_else(machine_cpus),
            memory: share().1.unwrap_or_else(memory_total),
        }
    }

    /// Processors of this node.
    pub fn read_cpus() -> u32 {
        share().0.unwrap_or_else(machine_cpus)
    }

    /// Bytes of memory.
    pub(crate) fn read_memory() -> u64 {
        share().1.unwrap_or_else(memory_total)
    }
}

fn share() -> (Option<u32>, Option<u64>) {
    SHARE.get().copied().unwrap_or_default()
}

fn machine_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// The machine's architecture in OCI's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.trim().strip_suffix("kB"))
        .and_then(|n| n.trim().parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}
