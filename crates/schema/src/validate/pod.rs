//! Specs of pods, in pods and in templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::meta::BAD_LABEL;
use super::{Causes, one_of};
use crate::failure::Cause;
use crate::quantity::Quantity;
use crate::selector::{bad_key, is_label};
use crate::value::{at, int, list, text};

const PORT: &str = "must be between 1 and 65535, inclusive";

pub(super) fn check(spec: &Value, field: &str, causes: &mut Causes) {
    let of = |member: &str| format!("{field}.{member}");
    if list(spec, &["containers"]).is_empty() {
        causes.push(Cause::required(of("containers"), ""));
    }
    one_of(
        spec,
        &["restartPolicy"],
        &of("restartPolicy"),
        &["Always", "OnFailure", "Never"],
        causes,
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, &["dnsPolicy"], &of("dnsPolicy"), &dns, causes);
    if text(spec, &["dnsPolicy"]) == "None" && list(spec, &["dnsConfig", "nameservers"]).is_empty() {
        causes.push(Cause::required(
            of("dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
    if let Some(seconds) =
        int(spec, &["activeDeadlineSeconds"]).filter(|s| !(1..=i64::from(i32::MAX)).contains(s))
    {
        causes.push(Cause::invalid(
            of("activeDeadlineSeconds"),
            &seconds.into(),
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    if let Some(seconds) = int(spec, &["terminationGracePeriodSeconds"]).filter(|s| *s < 0) {
        causes.push(Cause::invalid(
            of("terminationGracePeriodSeconds"),
            &seconds.into(),
            "must be greater than or equal to 0",
        ));
    }
    super::meta::labels(spec.get("nodeSelector"), &of("nodeSelector"), causes);
    for member in ["hostname", "subdomain"] {
        let name = text(spec, &[member]);
        if !name.is_empty() && !is_label(name) {
            causes.push(Cause::invalid_text(of(member), name, BAD_LABEL));
        }
    }
    let volumes = volumes(spec, field, causes);
    tolerations(spec, field, causes);
    let mut names = BTreeSet::new();
    for (member, plain) in [
        ("initContainers", false),
        ("containers", true),
        ("ephemeralContainers", false),
    ] {
        let mut ports = BTreeSet::new();
        for (i, c) in list(spec, &[member]).iter().enumerate() {
            let path = format!("{field}.{member}[{i}]");
            let name = text(c, &["name"]);
            if !is_label(name) {
                causes.push(Cause::invalid_text(format!("{path}.name"), name, BAD_LABEL));
            } else if !names.insert(name.to_owned()) {
                causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            }
            container(c, &path, &volumes, causes);
            host_ports(c, &path, plain.then_some(&mut ports), causes);
            let sidecar = text(c, &["restartPolicy"]) == "Always";
            if member == "initContainers" && !sidecar {
                for probe in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                    if c.get(probe).is_some() {
                        let why = "may not be set for init containers without restartPolicy=Always";
                        causes.push(Cause::forbidden(format!("{path}.{probe}"), why));
                    }
                }
            }
        }
    }
    spread(spec, field, causes);
}

fn volumes(spec: &Value, field: &str, causes: &mut Causes) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (i, volume) in list(spec, &["volumes"]).iter().enumerate() {
        let path = format!("{field}.volumes[{i}]");
        let name = text(volume, &["name"]);
        if !is_label(name) {
            causes.push(Cause::invalid_text(format!("{path}.name"), name, BAD_LABEL));
        } else if !names.insert(name.to_owned()) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, _)| k)
            .filter(|k| *k != "name")
            .collect();
        for extra in sources.iter().skip(1) {
            causes.push(Cause::forbidden(
                format!("{path}.{extra}"),
                "may not specify more than 1 volume type",
            ));
        }
        for (source, member) in [("configMap", "name"), ("secret", "secretName")] {
            if volume.get(source).is_some() && text(volume, &[source, member]).is_empty() {
                causes.push(Cause::required(format!("{path}.{source}.{member}"), ""));
            }
            if let Some(mode) = int(volume, &[source, "defaultMode"]).filter(|m| !(0..=0o777).contains(m)) {
                let why = "must be a number between 0 and 0777 (octal), both inclusive";
                causes.push(Cause::invalid(
                    format!("{path}.{source}.defaultMode"),
                    &mode.into(),
                    why,
                ));
            }
        }
        let host = text(volume, &["hostPath", "path"]);
        if host.split('/').any(|part| part == "..") {
            causes.push(Cause::invalid_text(
                format!("{path}.hostPath.path"),
                host,
                "must not contain '..'",
            ));
        }
        let kinds = [
            "",
            "DirectoryOrCreate",
            "Directory",
            "FileOrCreate",
            "File",
            "Socket",
            "CharDevice",
            "BlockDevice",
        ];
        one_of(
            volume,
            &["hostPath", "type"],
            &format!("{path}.hostPath.type"),
            &kinds,
            causes,
        );
        if let Some(size) =
            Quantity::parse(text(volume, &["emptyDir", "sizeLimit"])).filter(|q| q.is_negative())
        {
            let why = "SizeLimit field must be a valid resource quantity";
            causes.push(Cause::forbidden(
                format!("{path}.emptyDir.sizeLimit"),
                format_args!("{why}: {size}"),
            ));
        }
    }
    names
}

fn tolerations(spec: &Value, field: &str, causes: &mut Causes) {
    for (i, t) in list(spec, &["tolerations"]).iter().enumerate() {
        let path = format!("{field}.tolerations[{i}]");
        let (key, operator, effect) = (text(t, &["key"]), text(t, &["operator"]), text(t, &["effect"]));
        if !key.is_empty()
            && let Some(why) = bad_key(key)
        {
            causes.push(Cause::invalid_text(format!("{path}.key"), key, why));
        }
        if key.is_empty() && operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.push(Cause::invalid_text(format!("{path}.operator"), operator, why));
        }
        match operator {
            "" | "Equal" | "Lt" | "Gt" => {}
            "Exists" if text(t, &["value"]).is_empty() => {}
            "Exists" => causes.push(Cause::invalid(
                format!("{path}.operator"),
                &json!(text(t, &["value"])),
                "value must be empty when `operator` is 'Exists'",
            )),
            other => causes.push(Cause::unsupported(
                format!("{path}.operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !["", "NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            causes.push(Cause::unsupported(
                format!("{path}.effect"),
                effect,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            ));
        }
        if t.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.push(Cause::invalid_text(format!("{path}.effect"), effect, why));
        }
    }
}

fn container(c: &Value, path: &str, volumes: &BTreeSet<String>, causes: &mut Causes) {
    let image = text(c, &["image"]);
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        causes.push(Cause::invalid_text(
            format!("{path}.image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(
        c,
        &["imagePullPolicy"],
        &format!("{path}.imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        causes,
    );
    let policies = ["File", "FallbackToLogsOnError"];
    one_of(
        c,
        &["terminationMessagePolicy"],
        &format!("{path}.terminationMessagePolicy"),
        &policies,
        causes,
    );
    env(c, path, causes);
    resources(&c["resources"], &format!("{path}.resources"), causes);
    let mut mounted = BTreeSet::new();
    for (i, mount) in list(c, &["volumeMounts"]).iter().enumerate() {
        let at = format!("{path}.volumeMounts[{i}]");
        let name = text(mount, &["name"]);
        if !volumes.contains(name) {
            causes.push(Cause::not_found(format!("{at}.name"), name));
        }
        let place = text(mount, &["mountPath"]);
        if !mounted.insert(place.to_owned()) {
            causes.push(Cause::invalid_text(
                format!("{at}.mountPath"),
                place,
                "must be unique",
            ));
        }
        let sub = text(mount, &["subPath"]);
        if sub.starts_with('/') {
            causes.push(Cause::invalid_text(
                format!("{at}.subPath"),
                sub,
                "must be a relative path",
            ));
        }
        if sub.split('/').any(|part| part == "..") {
            causes.push(Cause::invalid_text(
                format!("{at}.subPath"),
                sub,
                "must not contain '..'",
            ));
        }
        if !sub.is_empty() && !text(mount, &["subPathExpr"]).is_empty() {
            let value = json!(text(mount, &["subPathExpr"]));
            causes.push(Cause::invalid(
                format!("{at}.subPathExpr"),
                &value,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = c.get(probe) {
            self::probe(
                value,
                &format!("{path}.{probe}"),
                probe != "readinessProbe",
                causes,
            );
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(value) = at(c, &["lifecycle", hook]) {
            handler(
                value,
                &format!("{path}.lifecycle.{hook}"),
                &["exec", "httpGet", "sleep", "tcpSocket"],
                causes,
            );
        }
    }
    if at(c, &["securityContext", "privileged"]) == Some(&Value::Bool(true))
        && at(c, &["securityContext", "allowPrivilegeEscalation"]) == Some(&Value::Bool(false))
    {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        causes.push(Cause::invalid(
            format!("{path}.securityContext"),
            &c["securityContext"],
            why,
        ));
    }
}

fn env(c: &Value, path: &str, causes: &mut Causes) {
    for (i, env) in list(c, &["env"]).iter().enumerate() {
        let at = format!("{path}.env[{i}]");
        let name = text(env, &["name"]);
        let printable = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
        if !name.bytes().all(printable) {
            let why = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            causes.push(Cause::invalid_text(format!("{at}.name"), name, why));
        }
        let Some(from) = env.get("valueFrom") else {
            continue;
        };
        if !text(env, &["value"]).is_empty() {
            let why = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid_text(format!("{at}.valueFrom"), "", why));
        }
        let sources = from.as_object().map_or(0, serde_json::Map::len);
        if sources != 1 {
            let why = if sources == 0 {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            } else {
                "may not have more than one field specified at a time"
            };
            causes.push(Cause::invalid_text(format!("{at}.valueFrom"), "", why));
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if from.get(source).is_some() && text(from, &[source, "name"]).is_empty() {
                causes.push(Cause::required(format!("{at}.valueFrom.{source}.name"), ""));
            }
        }
    }
}

/// Requests and limits.
pub(super) fn resources(resources: &Value, path: &str, causes: &mut Causes) {
    let amounts = |what: &str| resources[what].as_object().cloned().unwrap_or_default();
    for what in ["limits", "requests"] {
        for (name, amount) in amounts(what) {
            let at = format!("{path}.{what}[{name}]");
            let standard = ["cpu", "memory", "ephemeral-storage", "storage"].contains(&name.as_str());
            if !standard && !name.contains('/') && !name.starts_with("hugepages-") {
                causes.push(Cause::invalid_text(
                    at.clone(),
                    &name,
                    "must be a standard resource type or fully qualified",
                ));
            }
            let Some(quantity) = Quantity::parse(amount.as_str().unwrap_or_default()) else {
                continue;
            };
            if quantity.is_negative() {
                causes.push(Cause::invalid(at, &amount, "must be greater than or equal to 0"));
            } else if name.contains('/') && !quantity.is_whole() {
                causes.push(Cause::invalid(at, &amount, "must be an integer"));
            }
        }
    }
    let limits = amounts("limits");
    for (name, request) in amounts("requests") {
        let parse = |v: &Value| Quantity::parse(v.as_str().unwrap_or_default());
        if let (Some(request_amount), Some(limit)) = (parse(&request), limits.get(&name).and_then(parse))
            && request_amount > limit
        {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            causes.push(Cause::invalid(format!("{path}.requests"), &request, why));
        }
    }
}

fn host_ports(c: &Value, path: &str, used: Option<&mut BTreeSet<String>>, causes: &mut Causes) {
    let mut used = used;
    let mut names = BTreeSet::new();
    for (i, port) in list(c, &["ports"]).iter().enumerate() {
        let at = format!("{path}.ports[{i}]");
        let number = int(port, &["containerPort"]).unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            causes.push(Cause::invalid(
                format!("{at}.containerPort"),
                &number.into(),
                PORT,
            ));
        }
        let name = text(port, &["name"]);
        if !name.is_empty() {
            if name.len() > 15 || !is_label(name) || !name.bytes().any(|b| b.is_ascii_lowercase()) {
                let why = if name.len() > 15 {
                    "must be no more than 15 bytes"
                } else {
                    "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
                };
                causes.push(Cause::invalid_text(format!("{at}.name"), name, why));
            } else if !names.insert(name.to_owned()) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
        }
        one_of(
            port,
            &["protocol"],
            &format!("{at}.protocol"),
            &["SCTP", "TCP", "UDP"],
            causes,
        );
        let host = int(port, &["hostPort"]).unwrap_or(0);
        if host != 0 {
            if !(1..=65_535).contains(&host) {
                causes.push(Cause::invalid(format!("{at}.hostPort"), &host.into(), PORT));
            }
            let key = format!("{}/{}/{host}", text(port, &["hostIP"]), text(port, &["protocol"]));
            if used.as_mut().is_some_and(|used| !used.insert(key.clone())) {
                causes.push(Cause::duplicate(
                    format!("{at}.hostPort"),
                    &json!(key.trim_start_matches('/')),
                ));
            }
        }
    }
}

fn probe(probe: &Value, path: &str, once: bool, causes: &mut Causes) {
    handler(probe, path, &["exec", "grpc", "httpGet", "tcpSocket"], causes);
    for member in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(number) = int(probe, &[member]).filter(|n| *n < 0) {
            causes.push(Cause::invalid(
                format!("{path}.{member}"),
                &number.into(),
                "must be greater than or equal to 0",
            ));
        }
    }
    if let Some(number) = int(probe, &["successThreshold"]).filter(|n| once && *n > 1) {
        causes.push(Cause::invalid(
            format!("{path}.successThreshold"),
            &number.into(),
            "must be 1",
        ));
    }
}

fn handler(handler: &Value, path: &str, kinds: &[&str], causes: &mut Causes) {
    let mut said = kinds.iter().filter(|k| handler.get(**k).is_some());
    if said.next().is_none() {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    for extra in said {
        causes.push(Cause::forbidden(
            format!("{path}.{extra}"),
            "may not specify more than 1 handler type",
        ));
    }
    if handler.get("exec").is_some() && list(handler, &["exec", "command"]).is_empty() {
        causes.push(Cause::required(format!("{path}.exec.command"), ""));
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(port) = int(handler, &[kind, "port"]).filter(|p| !(1..=65_535).contains(p)) {
            causes.push(Cause::invalid(format!("{path}.{kind}.port"), &port.into(), PORT));
        }
    }
    one_of(
        handler,
        &["httpGet", "scheme"],
        &format!("{path}.httpGet.scheme"),
        &["HTTP", "HTTPS"],
        causes,
    );
}

fn spread(spec: &Value, field: &str, causes: &mut Causes) {
    for (i, c) in list(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let path = format!("{field}.topologySpreadConstraints[{i}]");
        if let Some(skew) = int(c, &["maxSkew"]).filter(|n| *n <= 0) {
            causes.push(Cause::invalid(
                format!("{path}.maxSkew"),
                &skew.into(),
                "must be greater than zero",
            ));
        }
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        one_of(
            c,
            &["whenUnsatisfiable"],
            &format!("{path}.whenUnsatisfiable"),
            &known,
            causes,
        );
    }
}
