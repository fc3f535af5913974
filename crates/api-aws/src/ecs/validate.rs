//! What a task definition must hold to, beyond the shapes of the API.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tripod_plan::ecs::query::Query;

use crate::call::Call;
use crate::fault::Fault;
use crate::iam::find_role;
use crate::value::Get as _;

type Verdict = Result<(), Fault>;

fn refuse(text: impl Into<String>) -> Verdict {
    Err(Fault::client(text))
}

/// Members of which nothing is implemented.
const REFUSED: &[&str] = &["proxyConfiguration", "inferenceAccelerators"];
const REFUSED_OF_CONTAINERS: &[&str] = &[
    "firelensConfiguration",
    "credentialSpecs",
    "environmentFiles",
    "restartPolicy",
    "repositoryCredentials",
];
const REFUSED_OF_VOLUMES: &[&str] = &[
    "fsxWindowsFileServerVolumeConfiguration",
    "configuredAtLaunch",
    "s3filesVolumeConfiguration",
];

fn absent(v: &Value, members: &[&str], place: &str) -> Verdict {
    let is_set = |m: &&&str| {
        v.member(m)
            .is_some_and(|v| *v != Value::Bool(false) && *v != serde_json::json!([]))
    };
    match members.iter().find(is_set) {
        Some(member) => refuse(format!("{place}{member} is not supported by this endpoint.")),
        None => Ok(()),
    }
}

/// Writes `1 vCPU` and `2 GB` as the numbers that they are.
pub(super) fn normalise(input: &mut Value) -> Verdict {
    for (member, unit, factor) in [("cpu", "vcpu", 1024.0), ("memory", "gb", 1024.0)] {
        let Some(text) = input.maybe(member).map(|t| t.trim().to_ascii_lowercase()) else {
            continue;
        };
        let value = match text.strip_suffix(unit) {
            Some(number) => number.trim().parse::<f64>().ok().map(|n| n * factor),
            None => text.parse::<i64>().ok().map(|n| n as f64),
        };
        let Some(value) = value.filter(|v| *v > 0.0) else {
            return refuse(format!("Invalid '{member}' setting for task."));
        };
        input[member] = format!("{}", value.round() as i64).into();
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    text.len() <= 255
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Everything that can be said of a definition by itself.
pub(super) fn definition(input: &Value) -> Verdict {
    let family = input.text("family");
    if family.is_empty() {
        return refuse("Family should not be null or empty.");
    }
    if !is_word(family) {
        return refuse("Family contains invalid characters or is longer than 255 of them.");
    }
    absent(input, REFUSED, "")?;
    let containers = input.items("containerDefinitions");
    if containers.is_empty() {
        return refuse("Container list cannot be empty.");
    }
    if containers.len() > 10 {
        return refuse("containerDefinitions: a task definition has at most 10 containers.");
    }
    volumes(input)?;
    let mut names = BTreeSet::new();
    for c in containers {
        container(input, c)?;
        if !names.insert(c.text("name")) {
            return refuse(format!(
                "Container.name should be unique: {} is there twice.",
                c.text("name")
            ));
        }
    }
    if containers.iter().all(|c| c.flag("essential") == Some(false)) {
        return refuse("containerDefinitions: at least one container must be essential.");
    }
    dependencies(containers)?;
    for constraint in input.items("placementConstraints") {
        if let Err(why) = Query::parse(constraint.text("expression")) {
            return refuse(format!("placementConstraints: invalid expression: {why}"));
        }
    }
    sizes(input)?;
    if input
        .texts("requiresCompatibilities")
        .iter()
        .any(|c| c == "FARGATE")
    {
        fargate(input)?;
    }
    Ok(())
}

fn volumes(input: &Value) -> Verdict {
    let mut names = BTreeSet::new();
    for volume in input.items("volumes") {
        let name = volume.text("name");
        if name.is_empty() || !is_word(name) {
            return refuse(format!(
                "Volume.name '{name}' is not a name of letters, digits, hyphens and underscores."
            ));
        }
        if !names.insert(name) {
            return refuse(format!("Volume name '{name}' should be unique."));
        }
        absent(volume, REFUSED_OF_VOLUMES, &format!("volumes: {name}: "))?;
        let kinds = ["host", "dockerVolumeConfiguration", "efsVolumeConfiguration"];
        if kinds.iter().filter(|k| volume.member(k).is_some()).count() > 1 {
            return refuse(format!(
                "Volume '{name}' should have only one kind of configuration."
            ));
        }
    }
    Ok(())
}

fn container(input: &Value, c: &Value) -> Verdict {
    let name = c.text("name");
    if name.is_empty() {
        return refuse("Container.name should not be null or empty.");
    }
    if !is_word(name) {
        return refuse("Container.name contains invalid characters or is longer than 255 of them.");
    }
    let image = c.text("image");
    if image.is_empty() {
        return refuse("Container.image should not be null or empty.");
    }
    if image.chars().any(char::is_whitespace) || tripod_model::reference::Reference::parse(image).is_err() {
        return refuse(format!("Container.image contains invalid characters: {image}"));
    }
    absent(
        c,
        REFUSED_OF_CONTAINERS,
        &format!("containerDefinitions: {name}: "),
    )?;
    if !c.items("resourceRequirements").is_empty() {
        return refuse(format!(
            "containerDefinitions: {name}: resourceRequirements are not supported by this endpoint."
        ));
    }
    memory(input, c, name)?;
    ports(input, c, name)?;
    mounts(input, c, name)?;
    options(c, name)
}

fn memory(input: &Value, c: &Value, name: &str) -> Verdict {
    let (hard, soft) = (c.number("memory"), c.number("memoryReservation"));
    if hard.is_none() && soft.is_none() && input.maybe("memory").is_none() {
        let text = "At least one of 'memory' or 'memoryReservation' must be specified.";
        return refuse(format!("Invalid setting for container '{name}'. {text}"));
    }
    for (member, value) in [("memory", hard), ("memoryReservation", soft)] {
        if value.is_some_and(|v| v < 4) {
            return refuse(format!(
                "Invalid setting for container '{name}'. '{member}' must be at least 4 MiB."
            ));
        }
    }
    if let (Some(hard), Some(soft)) = (hard, soft)
        && soft > hard
    {
        let text = "'memoryReservation' must not be greater than 'memory'.";
        return refuse(format!("Invalid setting for container '{name}'. {text}"));
    }
    if c.number("cpu").is_some_and(|n| n < 0) {
        return refuse(format!(
            "Invalid setting for container '{name}'. 'cpu' must not be negative."
        ));
    }
    Ok(())
}

fn ports(input: &Value, c: &Value, name: &str) -> Verdict {
    let mode = input.text("networkMode");
    if mode == "awsvpc" && !c.items("links").is_empty() {
        return refuse("Links are not supported when networkMode=awsvpc.");
    }
    if !c.items("links").is_empty() {
        return refuse(format!(
            "containerDefinitions: {name}: links are not supported by this endpoint."
        ));
    }
    for mapping in c.items("portMappings") {
        if mapping.member("containerPortRange").is_some() {
            return refuse(format!(
                "containerDefinitions: {name}: containerPortRange is not supported by this endpoint."
            ));
        }
        let (port, host) = (mapping.number("containerPort"), mapping.number("hostPort"));
        let Some(port) = port.filter(|p| (1..=65535).contains(p)) else {
            return refuse(format!("Invalid 'containerPort' setting for container '{name}'."));
        };
        if host.is_some_and(|p| !(0..=65535).contains(&p)) {
            return refuse(format!("Invalid 'hostPort' setting for container '{name}'."));
        }
        if matches!(mode, "awsvpc" | "host") && host.is_some_and(|h| h != port) {
            return refuse(format!(
                "When networkMode={mode}, the host ports and container ports in port mappings must match."
            ));
        }
    }
    Ok(())
}

fn mounts(input: &Value, c: &Value, name: &str) -> Verdict {
    for mount in c.items("mountPoints") {
        let (source, path) = (mount.text("sourceVolume"), mount.text("containerPath"));
        if !input.items("volumes").iter().any(|v| v.text("name") == source) {
            return refuse(format!("Unknown volume '{source}'."));
        }
        if !path.starts_with('/') {
            return refuse(format!(
                "Invalid 'containerPath' for container '{name}': '{path}' is not absolute."
            ));
        }
    }
    for from in c.items("volumesFrom") {
        let source = from.text("sourceContainer");
        if !input
            .items("containerDefinitions")
            .iter()
            .any(|o| o.text("name") == source && source != name)
        {
            return refuse(format!(
                "Unknown container '{source}' in volumesFrom of container '{name}'."
            ));
        }
    }
    Ok(())
}

fn options(c: &Value, name: &str) -> Verdict {
    for u in c.items("ulimits") {
        if u.number("softLimit") > u.number("hardLimit") && u.number("hardLimit") != Some(-1) {
            return refuse(format!(
                "Invalid ulimit '{}' for container '{name}': softLimit is above hardLimit.",
                u.text("name")
            ));
        }
    }
    if let Some(check) = c.member("healthCheck") {
        if check.items("command").is_empty() {
            return refuse(format!(
                "Container '{name}': healthCheck.command should not be empty."
            ));
        }
        for (member, low, high) in [
            ("interval", 5, 300),
            ("timeout", 2, 60),
            ("retries", 1, 10),
            ("startPeriod", 0, 300),
        ] {
            if check.number(member).is_some_and(|n| !(low..=high).contains(&n)) {
                return refuse(format!(
                    "Container '{name}': healthCheck.{member} must be between {low} and {high}."
                ));
            }
        }
    }
    for pair in c.items("environment") {
        if pair.text("name").is_empty() {
            return refuse(format!(
                "Container '{name}': the name of an environment variable should not be empty."
            ));
        }
    }
    for secret in c.items("secrets") {
        if c.items("environment")
            .iter()
            .any(|e| e.text("name") == secret.text("name"))
        {
            return refuse(format!(
                "The secret name must be unique and not shared with any new or existing environment variables set on the \
                 container, such as '{}'.",
                secret.text("name")
            ));
        }
    }
    log(c, name)
}

fn log(c: &Value, name: &str) -> Verdict {
    let Some(config) = c.member("logConfiguration") else {
        return Ok(());
    };
    match config.text("logDriver") {
        "awslogs" => {
            let options = config.get("options").cloned().unwrap_or_default();
            for option in ["awslogs-group", "awslogs-region"] {
                if options.text(option).is_empty() {
                    return refuse(format!(
                        "Log driver awslogs requires options: {option} (container '{name}')."
                    ));
                }
            }
            Ok(())
        }
        "json-file" => Ok(()),
        "awsfirelens" => refuse("logDriver awsfirelens (FireLens) is not supported by this endpoint."),
        other => refuse(format!(
            "Log driver {other} of container '{name}' is not supported by this endpoint."
        )),
    }
}

fn dependencies(containers: &[Value]) -> Verdict {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for c in containers {
        for d in c.items("dependsOn") {
            let (to, condition) = (d.text("containerName"), d.text("condition"));
            let Some(other) = containers.iter().find(|o| o.text("name") == to) else {
                return refuse(format!("dependsOn: Unknown container '{to}'."));
            };
            if matches!(condition, "COMPLETE" | "SUCCESS") && other.flag("essential") != Some(false) {
                return refuse(format!(
                    "A dependency with the condition {condition} is not supported on the essential container '{to}'."
                ));
            }
            if condition == "HEALTHY" && other.member("healthCheck").is_none() {
                return refuse(format!(
                    "dependsOn: container '{to}' has no healthCheck, so that it cannot be HEALTHY."
                ));
            }
            edges.entry(c.text("name")).or_default().push(to);
        }
    }
    let names: Vec<&str> = edges.keys().copied().collect();
    for name in names {
        let (mut seen, mut todo) = (BTreeSet::new(), edges.get(name).cloned().unwrap_or_default());
        while let Some(next) = todo.pop() {
            if next == name {
                return refuse(format!(
                    "The dependsOn of containers is circular: container '{name}' waits for itself."
                ));
            }
            if seen.insert(next) {
                todo.extend(edges.get(next).into_iter().flatten());
            }
        }
    }
    Ok(())
}

/// What containers ask for fits into what the task has.
fn sizes(input: &Value) -> Verdict {
    let sum = |of: &dyn Fn(&Value) -> Option<i64>| {
        input
            .items("containerDefinitions")
            .iter()
            .filter_map(of)
            .sum::<i64>()
    };
    if let Some(cpu) = input.maybe("cpu").and_then(|c| c.parse::<i64>().ok()) {
        let wanted = sum(&|c| c.number("cpu"));
        if wanted > cpu {
            return refuse(format!(
                "Invalid setting for container. The CPU of all containers ({wanted}) is above that of the task ({cpu})."
            ));
        }
    }
    if let Some(memory) = input.maybe("memory").and_then(|c| c.parse::<i64>().ok()) {
        let wanted = sum(&|c| c.number("memoryReservation").or(c.number("memory")));
        let above = input
            .items("containerDefinitions")
            .iter()
            .find(|c| c.number("memory") > Some(memory));
        if wanted > memory || above.is_some() {
            return refuse(format!(
                "Invalid setting for container. The memory of containers ({wanted}) is above that of the task ({memory})."
            ));
        }
    }
    Ok(())
}

/// Whether Fargate has such a size.
fn is_fargate_size(cpu: i64, memory: i64) -> bool {
    let gib = |low: i64, high: i64, step: i64| {
        (low * 1024..=high * 1024).contains(&memory) && (memory - low * 1024) % (step * 1024) == 0
    };
    match cpu {
        256 => [512, 1024, 2048].contains(&memory),
        512 => gib(1, 4, 1),
        1024 => gib(2, 8, 1),
        2048 => gib(4, 16, 1),
        4096 => gib(8, 30, 1),
        8192 => gib(16, 60, 4),
        16384 => gib(32, 120, 8),
        _ => false,
    }
}

/// What Fargate asks of a definition.
pub(super) fn fargate(input: &Value) -> Verdict {
    if input.text("networkMode") != "awsvpc" {
        return refuse("Fargate only supports network mode ‘awsvpc’.");
    }
    for member in ["cpu", "memory"] {
        if input.text(member).is_empty() {
            return refuse(format!(
                "Fargate requires that '{member}' be defined at the task level."
            ));
        }
    }
    let size = |member: &str| input.text(member).parse::<i64>().unwrap_or(0);
    if !is_fargate_size(size("cpu"), size("memory")) {
        return refuse(format!(
            "No Fargate configuration exists for given values: {} CPU, {} memory. See the Amazon ECS documentation for \
             the valid values.",
            size("cpu"),
            size("memory")
        ));
    }
    if !input.items("placementConstraints").is_empty() {
        return refuse("Fargate does not support placementConstraints.");
    }
    if input.text("pidMode") == "host" {
        return refuse(
            "Tasks using the Fargate launch type do not support pidMode 'host'. The supported value for pidMode is \
             'task'.",
        );
    }
    if !input.text("ipcMode").is_empty() {
        return refuse("Tasks using the Fargate launch type do not support ipcMode.");
    }
    if let Some(gib) = input.get("ephemeralStorage").and_then(|e| e.number("sizeInGiB"))
        && !(20..=200).contains(&gib)
    {
        return refuse(format!(
            "Invalid value {gib} for ephemeralStorage.sizeInGiB: it must be between 21 and 200."
        ));
    }
    for c in input.items("containerDefinitions") {
        let name = c.text("name");
        if c.flag("privileged") == Some(true) {
            return refuse(format!(
                "Fargate does not support the privileged container '{name}'."
            ));
        }
        if c.number("stopTimeout").is_some_and(|t| t > 120) {
            return refuse(format!(
                "Container '{name}': stopTimeout is at most 120 seconds on Fargate."
            ));
        }
        let needs_role = c
            .get("logConfiguration")
            .is_some_and(|l| l.text("logDriver") == "awslogs")
            || !c.items("secrets").is_empty();
        if needs_role && input.text("executionRoleArn").is_empty() {
            let what = if c.items("secrets").is_empty() {
                "support log driver awslogs"
            } else {
                "use secrets"
            };
            return refuse(format!(
                "Fargate requires task definition to have execution role ARN to {what}."
            ));
        }
    }
    for volume in input.items("volumes") {
        let host = volume
            .get("host")
            .is_some_and(|h| !h.text("sourcePath").is_empty());
        if host || volume.member("dockerVolumeConfiguration").is_some() {
            return refuse(format!(
                "Fargate does not support the volume '{}': use an empty one or EFS.",
                volume.text("name")
            ));
        }
    }
    Ok(())
}

/// The roles that a definition names are there.
pub(super) fn roles(call: &Call, input: &Value) -> Verdict {
    for member in ["taskRoleArn", "executionRoleArn"] {
        let role = input.text(member);
        if !role.is_empty() && find_role(&call.state(), super::last_part(role))?.is_none() {
            return refuse(format!("Role is not valid: {member} {role} does not exist."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(change: impl Fn(&mut Value)) -> Result<(), Fault> {
        let mut input = json!({
            "family": "web", "networkMode": "awsvpc", "cpu": ".25 vCPU", "memory": "0.5 GB",
            "requiresCompatibilities": ["FARGATE"],
            "containerDefinitions": [
                { "name": "main", "image": "busybox:latest" },
                { "name": "side", "image": "busybox", "essential": false, "healthCheck": { "command": ["CMD", "true"] } },
            ],
        });
        change(&mut input);
        normalise(&mut input)?;
        definition(&input)
    }

    #[test]
    fn what_is_refused_is_named() {
        with(|_| {}).unwrap();
        type Change = Box<dyn Fn(&mut Value)>;
        let cases: Vec<(&str, Change)> = vec![
            (
                "No Fargate configuration exists for given values: 512 CPU, 512 memory.",
                Box::new(|i| {
                    i["cpu"] = "512".into();
                }),
            ),
            ("network mode", Box::new(|i| i["networkMode"] = "bridge".into())),
            (
                "'cpu'",
                Box::new(|i| drop(i.as_object_mut().unwrap().remove("cpu"))),
            ),
            (
                "essential",
                Box::new(|i| i["containerDefinitions"][0]["essential"] = false.into()),
            ),
            (
                "circular",
                Box::new(|i| {
                    i["containerDefinitions"][0]["dependsOn"] =
                        json!([{ "containerName": "side", "condition": "HEALTHY" }]);
                    i["containerDefinitions"][1]["dependsOn"] =
                        json!([{ "containerName": "main", "condition": "START" }]);
                }),
            ),
            (
                "essential container 'main'",
                Box::new(|i| {
                    i["containerDefinitions"][1]["dependsOn"] =
                        json!([{ "containerName": "main", "condition": "COMPLETE" }]);
                }),
            ),
            (
                "Unknown volume 'v'",
                Box::new(|i| {
                    i["containerDefinitions"][0]["mountPoints"] =
                        json!([{ "sourceVolume": "v", "containerPath": "/v" }]);
                }),
            ),
            (
                "Container.name",
                Box::new(|i| i["containerDefinitions"][1]["name"] = "main".into()),
            ),
            (
                "Container.image",
                Box::new(|i| i["containerDefinitions"][0]["image"] = "Bad Image".into()),
            ),
            (
                "firelensConfiguration",
                Box::new(|i| {
                    i["containerDefinitions"][0]["firelensConfiguration"] = json!({ "type": "fluentbit" });
                }),
            ),
            (
                "execution role",
                Box::new(|i| {
                    i["containerDefinitions"][0]["logConfiguration"] = json!({ "logDriver": "awslogs",
                    "options": { "awslogs-group": "g", "awslogs-region": "r" } });
                }),
            ),
            ("Family", Box::new(|i| i["family"] = "a b".into())),
            ("'memory'", Box::new(|i| i["memory"] = "lots".into())),
            (
                "stopTimeout",
                Box::new(|i| i["containerDefinitions"][0]["stopTimeout"] = 121.into()),
            ),
        ];
        for (text, change) in cases {
            let fault = with(change).expect_err(text);
            assert_eq!(fault.code, "ClientException");
            assert!(
                fault.message.contains(text),
                "{} is not about {text}",
                fault.message
            );
        }
    }

    #[test]
    fn sizes_of_fargate() {
        for (cpu, memory, is) in [
            (256, 512, true),
            (256, 4096, false),
            (512, 1024, true),
            (4096, 30 * 1024, true),
            (4096, 31 * 1024, false),
            (8192, 20 * 1024, true),
            (8192, 18 * 1024, false),
            (16384, 120 * 1024, true),
        ] {
            assert_eq!(is_fargate_size(cpu, memory), is, "{cpu} {memory}");
        }
    }
}
