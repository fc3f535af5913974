//! What lists show of each kind.

use std::collections::HashMap;

use serde_json::Value;
use tripod_model::object::decode;
use tripod_model::pod::DesiredState;
use tripod_model::swarm::{ServiceMode, SwarmService, TaskState};

use crate::call::Ctx;
use crate::kinds::link;
use crate::object::{Obj, all, decoded, list, pairs, scalar, text};
use crate::status::{self, Counts, Health};
use crate::view::{Cell, Tone};

pub(crate) fn none(_: &Ctx, _: &Obj) -> Vec<Cell> {
    Vec::new()
}

pub(crate) fn pod(ctx: &Ctx, pod: &Obj) -> Vec<Cell> {
    let (ready, all) = status::ready_containers(pod);
    let state = pod.pod_state();
    let swarm = pod
        .annotation(tripod_model::pod::EXTENSION_ANNOTATION)
        .contains("\"swarm\":{");
    let ready = if swarm {
        format!("{}/1", u8::from(state["observed"] == "running"))
    } else {
        format!("{ready}/{all}")
    };
    let owner = if swarm {
        let extension = pod.pod_extension();
        let (id, name) = (
            text(&extension, "/swarm/serviceId"),
            text(&extension, "/swarm/serviceName"),
        );
        Cell::Link(
            ctx.ui.url(&["swarm-services", pod.namespace(), id]),
            name.to_owned(),
        )
    } else {
        pod.owner().map_or(Cell::text(""), |(kind, name)| {
            link(ctx, kind, pod.namespace(), name)
        })
    };
    vec![
        status::pod(pod).cell(),
        Cell::text(ready),
        Cell::text(status::restarts(pod).to_string()),
        owner,
        link(ctx, "Node", "", pod.str("/spec/nodeName")),
        Cell::code(pod.str("/status/podIP")),
    ]
}

pub(crate) fn workload(ctx: &Ctx, object: &Obj) -> Vec<Cell> {
    let counts = replicas(ctx, object);
    vec![
        workload_health(ctx, object, counts).cell(),
        Cell::text(format!("{} / {}", counts.ready, counts.wanted)),
        Cell::Lines(images(ctx, object)),
    ]
}

/// How many replicas a workload of any family has and should have.
pub(crate) fn replicas(ctx: &Ctx, object: &Obj) -> Counts {
    match object.kind() {
        "SwarmService" => {}
        "EcsService" => {
            let pods = ecs_pods(ctx, object);
            let running = pods
                .iter()
                .filter(|p| p.str("/status/phase") == "Running")
                .count();
            return Counts {
                ready: i64::try_from(running).unwrap_or(i64::MAX),
                wanted: object.int("/spec/desiredCount"),
            };
        }
        _ => return status::counts(object),
    }
    let Ok(service) = decode::<SwarmService>(&object.stored.bytes) else {
        return Counts::default();
    };
    let (mut ready, mut live) = (0, 0);
    for pod in service_pods(ctx, object.name()) {
        let state = pod.pod_state();
        let desired: DesiredState = serde_json::from_value(state["desired"].clone()).unwrap_or_default();
        let observed: TaskState = serde_json::from_value(state["observed"].clone()).unwrap_or_default();
        let wanted = desired <= DesiredState::Complete;
        live += i64::from(wanted);
        ready += match service.spec.mode.is_job() {
            true => i64::from(observed == TaskState::Complete),
            false => i64::from(wanted && observed == TaskState::Running),
        };
    }
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let wanted = match service.spec.mode {
        ServiceMode::Replicated { replicas } => whole(replicas),
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => whole(total_completions),
        ServiceMode::Global {} | ServiceMode::GlobalJob {} => live,
    };
    Counts { ready, wanted }
}

/// The tasks of a Swarm service.
pub(crate) fn service_pods<'a>(ctx: &'a Ctx, service_id: &str) -> &'a [Obj] {
    let tasks = ctx.tasks.get_or_init(|| {
        let mut tasks: HashMap<String, Vec<Obj>> = HashMap::new();
        for pod in decoded(&ctx.state, "pods", Some("swarm")) {
            let service = text(&pod.pod_extension(), "/swarm/serviceId").to_owned();
            tasks.entry(service).or_default().push(pod);
        }
        tasks
    });
    tasks.get(service_id).map_or(&[], Vec::as_slice)
}

/// The tasks of an ECS service that are not asked to end.
pub(crate) fn ecs_pods(ctx: &Ctx, service: &Obj) -> Vec<Obj> {
    let pods = all(&ctx.state, "pods", Some(service.namespace()))
        .filter(|p| p.labels.get("ecs.tripod.dev/service") == Some(service.str("/spec/name")));
    pods.map(Obj::new).collect()
}

/// How a workload of any family is.
pub(crate) fn workload_health(ctx: &Ctx, object: &Obj, counts: Counts) -> Health {
    if object.kind() != "SwarmService" {
        return status::workload(object, counts);
    }
    let (state, message) = (
        object.str("/status/update/state"),
        object.str("/status/update/message"),
    );
    let health = |tone, word: &str, why: &str| Health {
        tone,
        word: word.to_owned(),
        why: why.to_owned(),
    };
    match state {
        "paused" | "rollback_paused" => health(Tone::Bad, "Paused", message),
        "updating" | "rollback_started" => health(Tone::Busy, "Rolling out", message),
        _ if counts.ready >= counts.wanted => health(Tone::Good, "Healthy", ""),
        _ => {
            let whys = service_pods(ctx, object.name()).iter().map(status::pod);
            let why = whys.filter(|h| h.tone == Tone::Bad).map(|h| h.why).next_back();
            health(Tone::Busy, "Waiting", &why.unwrap_or_default())
        }
    }
}

/// The images of a workload of any family.
pub(crate) fn images(ctx: &Ctx, object: &Obj) -> Vec<String> {
    let of = |pointer: &str| {
        let containers = object.list(pointer).iter();
        containers
            .map(|c| text(c, "/image").to_owned())
            .collect::<Vec<_>>()
    };
    match object.kind() {
        "SwarmService" => {
            let image = object.str("/spec/taskTemplate/container/image");
            vec![image.split('@').next().unwrap_or_default().to_owned()]
        }
        "EcsService" => {
            let arn = object.str("/spec/template/taskDefinition");
            let short = arn.rsplit('/').next().unwrap_or_default();
            let found = decoded(&ctx.state, "taskdefinitions.ecs.tripod.dev", None)
                .find(|d| format!("{}:{}", d.str("/spec/family"), d.int("/spec/revision")) == short);
            let Some(found) = found else {
                return vec![short.to_owned()];
            };
            let containers = found.list("/spec/definition/containerDefinitions").iter();
            containers.map(|c| text(c, "/image").to_owned()).collect()
        }
        "CronJob" => of("/spec/jobTemplate/spec/template/spec/containers"),
        "Pod" => of("/spec/containers"),
        _ => of("/spec/template/spec/containers"),
    }
}

pub(crate) fn cron_job(_: &Ctx, job: &Obj) -> Vec<Cell> {
    vec![
        status::workload(job, Counts::default()).cell(),
        Cell::code(job.str("/spec/schedule")),
        Cell::Ago(job.time("/status/lastScheduleTime")),
    ]
}

pub(crate) fn service(ctx: &Ctx, service: &Obj) -> Vec<Cell> {
    let ports = service.list("/spec/ports").iter().map(|p| {
        let protocol = match text(p, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        match p["nodePort"].as_i64() {
            Some(node) => format!("{}:{node}/{protocol}", p["port"]),
            None => format!("{}/{protocol}", p["port"]),
        }
    });
    let kind = match service.str("/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    };
    vec![
        Cell::text(kind),
        Cell::code(service.str("/spec/clusterIP")),
        Cell::Lines(ports.collect()),
        Cell::Links(reached(ctx, service)),
    ]
}

/// Where a service is reached from outside: addresses and texts.
pub(crate) fn reached(ctx: &Ctx, service: &Obj) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut add = |host: &str, port: &Value, item: &Value| {
        let scheme = match (text(item, "/name"), port.as_i64()) {
            ("https", _) | (_, Some(443)) => "https",
            _ => "http",
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let url = format!("{scheme}://{host}:{port}");
        found.push((url.clone(), url));
    };
    let external = service.list("/spec/externalIPs").iter().filter_map(Value::as_str);
    let balancers = service
        .list("/status/loadBalancer/ingress")
        .iter()
        .map(|i| match text(i, "/ip") {
            "" => text(i, "/hostname"),
            ip => ip,
        });
    let hosts: Vec<&str> = balancers.chain(external).collect();
    let node = decoded(&ctx.state, "nodes", None)
        .map(|n| node_address(&n))
        .find(|a| !a.is_empty());
    for item in service.list("/spec/ports") {
        for host in &hosts {
            add(host, &item["port"], item);
        }
        if let (Some(node), true) = (&node, item["nodePort"].is_i64()) {
            add(node, &item["nodePort"], item);
        }
    }
    found
}

pub(crate) fn ingress(_: &Ctx, ingress: &Obj) -> Vec<Cell> {
    let hosts = ingress
        .list("/spec/rules")
        .iter()
        .map(|r| text(r, "/host").to_owned());
    vec![Cell::Lines(hosts.collect())]
}

pub(crate) fn slice(_: &Ctx, slice: &Obj) -> Vec<Cell> {
    let endpoints = slice.list("/endpoints").iter();
    let addresses = endpoints.flat_map(|e| list(e, "/addresses").iter().map(scalar));
    vec![Cell::Lines(addresses.collect())]
}

pub(crate) fn policy(_: &Ctx, policy: &Obj) -> Vec<Cell> {
    vec![Cell::Tags(tags(policy.pairs("/spec/podSelector/matchLabels")))]
}

pub(crate) fn network(_: &Ctx, network: &Obj) -> Vec<Cell> {
    let subnets = network
        .list("/spec/subnets")
        .iter()
        .map(|s| text(s, "/subnet").to_owned());
    vec![
        Cell::text(scalar(&network.value["spec"]["driver"])),
        Cell::Lines(subnets.collect()),
    ]
}

pub(crate) fn node(ctx: &Ctx, node: &Obj) -> Vec<Cell> {
    let mut roles: Vec<String> = node
        .pairs("/metadata/labels")
        .into_iter()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/").map(str::to_owned))
        .collect();
    match node.str("/spec/swarm/role") {
        "" => {}
        role if node.bool("/status/manager/leader") => roles.push(format!("{role}, leader")),
        role => roles.push(role.to_owned()),
    }
    let (cpus, memory) = capacity(node);
    let (cpu, used) = match ctx.readings.node(node.name()) {
        Some(now) => (
            bar(now.cores, cpus, format!("{:.2} / {cpus:.0}", now.cores)),
            bar(
                now.memory as f64,
                memory as f64,
                format!("{} / {}", bytes(now.memory), bytes(memory)),
            ),
        ),
        None => (Cell::text(format!("{cpus:.0}")), Cell::text(bytes(memory))),
    };
    let version = match node.str("/status/nodeInfo/kubeletVersion") {
        "" => node.str("/status/description/engineVersion"),
        version => version,
    };
    vec![
        status::node(node).cell(),
        Cell::Tags(roles),
        Cell::code(node_address(node)),
        cpu,
        used,
        Cell::text(version),
    ]
}

fn bar(part: f64, whole: f64, text: String) -> Cell {
    let percent = if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    Cell::Bar((percent.clamp(0.0, 100.0) * 10.0).round() / 10.0, text)
}

/// Processors and bytes of memory of a node.
pub(crate) fn capacity(node: &Obj) -> (f64, u64) {
    let cpus = node.int("/status/description/nanoCpus") as f64 / 1e9;
    (
        cpus,
        u64::try_from(node.int("/status/description/memory")).unwrap_or(0),
    )
}

/// The address of a node.
pub(crate) fn node_address(node: &Obj) -> String {
    let internal = node
        .list("/status/addresses")
        .iter()
        .find(|a| a["type"] == "InternalIP");
    internal.map_or_else(
        || node.str("/status/addr").to_owned(),
        |a| text(a, "/address").to_owned(),
    )
}

pub(crate) fn namespace(_: &Ctx, namespace: &Obj) -> Vec<Cell> {
    let phase = match namespace.str("/status/phase") {
        "" => "Active",
        phase => phase,
    };
    let tone = if phase == "Active" { Tone::Good } else { Tone::Busy };
    vec![Cell::State(tone, phase.to_owned(), String::new())]
}

pub(crate) fn keys(_: &Ctx, object: &Obj) -> Vec<Cell> {
    let keys = object
        .pairs("/data")
        .into_iter()
        .chain(object.pairs("/binaryData"));
    vec![Cell::Tags(keys.map(|(k, _)| k).collect())]
}

pub(crate) fn secret(ctx: &Ctx, secret: &Obj) -> Vec<Cell> {
    let mut cells = vec![Cell::text(secret.str("/type"))];
    cells.extend(keys(ctx, secret));
    cells
}

pub(crate) fn claim(ctx: &Ctx, claim: &Obj) -> Vec<Cell> {
    vec![
        phase(claim),
        link(ctx, "PersistentVolume", "", claim.str("/spec/volumeName")),
        Cell::text(match claim.str("/status/capacity/storage") {
            "" => claim.str("/spec/resources/requests/storage"),
            capacity => capacity,
        }),
        link(ctx, "StorageClass", "", claim.str("/spec/storageClassName")),
    ]
}

pub(crate) fn volume(ctx: &Ctx, volume: &Obj) -> Vec<Cell> {
    let claim = (
        volume.str("/spec/claimRef/namespace"),
        volume.str("/spec/claimRef/name"),
    );
    vec![
        phase(volume),
        Cell::text(volume.str("/spec/capacity/storage")),
        link(ctx, "PersistentVolumeClaim", claim.0, claim.1),
        link(ctx, "StorageClass", "", volume.str("/spec/storageClassName")),
    ]
}

fn phase(object: &Obj) -> Cell {
    let phase = match object.str("/status/phase") {
        "" => "Pending",
        phase => phase,
    };
    let tone = match phase {
        "Bound" | "Available" => Tone::Good,
        "Lost" | "Failed" => Tone::Bad,
        "Released" => Tone::Calm,
        _ => Tone::Busy,
    };
    Cell::State(tone, phase.to_owned(), String::new())
}

pub(crate) fn class(_: &Ctx, class: &Obj) -> Vec<Cell> {
    vec![Cell::code(class.str("/provisioner"))]
}

pub(crate) fn event(ctx: &Ctx, event: &Obj) -> Vec<Cell> {
    let tone = if event.str("/type") == "Warning" {
        Tone::Bad
    } else {
        Tone::Calm
    };
    let about = event
        .value
        .pointer("/involvedObject")
        .or(event.value.pointer("/regarding"));
    let about = about.map_or(Cell::text(""), |o| {
        link(ctx, text(o, "/kind"), text(o, "/namespace"), text(o, "/name"))
    });
    let message = match event.str("/message") {
        "" => event.str("/note"),
        message => message,
    };
    let times = event.int("/count").max(event.int("/series/count")).max(1);
    vec![
        Cell::State(tone, event.str("/type").to_owned(), String::new()),
        Cell::text(event.str("/reason")),
        about,
        Cell::text(message),
        Cell::text(times.to_string()),
    ]
}

/// When an event last happened.
pub(crate) fn event_time(event: &Obj) -> Option<tripod_model::Time> {
    [
        "/lastTimestamp",
        "/series/lastObservedTime",
        "/eventTime",
        "/firstTimestamp",
    ]
    .iter()
    .find_map(|p| event.time(p))
    .or_else(|| event.created())
}

/// Labels as `key=value`.
pub(crate) fn tags(pairs: Vec<(String, String)>) -> Vec<String> {
    pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect()
}

/// Bytes in the largest unit that leaves a whole part.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value {
        v if v >= 10.0 || unit == 0 => format!("{v:.0} {}", UNITS[unit]),
        v => format!("{v:.1} {}", UNITS[unit]),
    }
}

/// The pairs of a value, for facts.
pub(crate) fn labels(value: &Value, pointer: &str) -> Cell {
    Cell::Tags(tags(pairs(value, pointer)))
}
