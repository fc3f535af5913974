//! `/metrics`: what the server counts, in the text form of Prometheus.

use std::fmt::Write as _;

use http::StatusCode;

use crate::call::Call;
use crate::reply::{self, Reply};
use crate::server::About;

/// Feature gates of Kubernetes whose behaviour is built in: on unless the command line closed them.
const BUILT_IN: &[(&str, &str)] = &[
    ("InPlacePodVerticalScaling", ""),
    ("JobBackoffLimitPerIndex", ""),
    ("JobPodReplacementPolicy", ""),
    ("JobSuccessPolicy", ""),
    ("PodLifecycleSleepAction", ""),
    ("SidecarContainers", ""),
    ("StatefulSetAutoDeletePVC", ""),
    ("WatchList", ""),
];

/// Serves them.
pub(crate) fn serve(call: &Call) -> Reply {
    let mut out = String::new();
    build(&mut out, call.shared.about());
    process(&mut out);
    objects(&mut out, call);
    call.shared.counters.write(&mut out);
    Ok(reply::bytes(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8; escaping=values",
        out,
    ))
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn build(out: &mut String, about: &About) {
    head(
        out,
        "kubernetes_build_info",
        "gauge",
        "The version that is served.",
    );
    let version = &about.version;
    let _ = writeln!(out, "kubernetes_build_info{{git_version=\"{version}\"}} 1");
    head(
        out,
        "kubernetes_feature_enabled",
        "gauge",
        "Feature gates by name: 1 is on, 0 is off.",
    );
    let mut gates: std::collections::BTreeMap<&str, (&str, bool)> = BUILT_IN
        .iter()
        .map(|(name, stage)| (*name, (*stage, true)))
        .collect();
    for (name, on) in &about.feature_gates {
        let stage = gates.get(name.as_str()).map_or("ALPHA", |(stage, _)| stage);
        gates.insert(name, (stage, *on));
    }
    for (name, (stage, on)) in gates {
        let _ = writeln!(
            out,
            "kubernetes_feature_enabled{{name=\"{name}\",stage=\"{stage}\"}} {}",
            u8::from(on)
        );
    }
}

/// The daemon's own use of the machine (`proc(5)`); left out where it cannot be read.
fn process(out: &mut String) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|p| p.parse::<u64>().ok());
    if let Some(pages) = pages {
        head(out, "process_resident_memory_bytes", "gauge", "Resident memory.");
        let _ = writeln!(out, "process_resident_memory_bytes {}", pages * 4096);
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in parentheses, may hold blanks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
        head(
            out,
            "process_cpu_seconds_total",
            "counter",
            "Processor time used.",
        );
        let _ = writeln!(out, "process_cpu_seconds_total {:.2}", (user + system) / 100.0);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        head(out, "process_open_fds", "gauge", "Open files.");
        let _ = writeln!(out, "process_open_fds {}", entries.count());
    }
}

fn objects(out: &mut String, call: &Call) {
    let state = call.manager.state();
    head(
        out,
        "apiserver_storage_objects",
        "gauge",
        "Objects in the store, by kind.",
    );
    let mut kinds: Vec<_> = state.kinds().collect();
    kinds.sort();
    for kind in kinds {
        let count = state.count(kind);
        let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{kind}\"}} {count}");
    }
}
