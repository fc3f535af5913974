//! Facts about this machine, read from `/proc` and `/etc`.

use std::fs;

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
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory: memory_total(),
        }
    }

    /// Bytes of memory.
    pub(crate) fn read_memory() -> u64 {
        memory_total()
    }
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
