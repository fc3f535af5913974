//! From a create request to a specification.

use tripod_model::container::{
    AttachFlags, ContainerSpec, HealthCheck, LogConfig, RestartCondition, RestartPolicy,
};
use tripod_model::{Error, Result};

use super::{check, mounts, network, ports, resources, security};
use crate::wire::container::{CreateBody, HealthConfig};
use crate::wire::host_config as wire;

/// The specification of a request, and what will not be honoured.
pub(crate) fn spec(body: CreateBody) -> Result<(ContainerSpec, Vec<String>)> {
    let mut warnings = Vec::new();
    check::config(&body)?;
    let h = &body.host_config;
    let restart = restart_policy(&h.restart_policy)?;
    if h.auto_remove && restart.condition != RestartCondition::No {
        return Err(
            Error::invalid("can't create 'AutoRemove' container with restart policy")
                .at("HostConfig.RestartPolicy"),
        );
    }
    let spec = ContainerSpec {
        resources: resources::resources(h, &mut warnings)?,
        security: security::security(h)?,
        mounts: mounts::mounts(h, &body.volumes)?,
        network: network::attachment(&body)?,
        exposed_ports: exposed(&body)?,
        log: log_config(&h.log_config)?,
        restart,
        healthcheck: body.healthcheck.as_ref().map(healthcheck).transpose()?,
        volumes_from: h.volumes_from.clone(),
        auto_remove: h.auto_remove,
        init: h.init.unwrap_or(false),
        runtime: h.runtime.clone(),
        isolation: h.isolation.clone(),
        container_id_file: h.container_id_file.clone(),
        storage_opt: h.storage_opt.clone(),
        group_add: h.group_add.clone(),
        annotations: h.annotations.clone(),
        console_size: console_size(&h.console_size),
        attach: AttachFlags {
            stdin: body.attach_stdin,
            stdout: body.attach_stdout,
            stderr: body.attach_stderr,
        },
        volumes: body.volumes.into_keys().collect(),
        image: body.image,
        entrypoint: entrypoint(body.entrypoint),
        command: body.cmd.0,
        env: body.env,
        working_dir: body.working_dir,
        user: body.user,
        hostname: body.hostname,
        domainname: body.domainname,
        labels: body.labels,
        tty: body.tty,
        open_stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        stop_signal: body.stop_signal,
        stop_timeout: body.stop_timeout,
        shell: body.shell,
        ..ContainerSpec::default()
    };
    Ok((spec, warnings))
}

/// A missing entrypoint leaves the image's, also when it is an empty list: that is what the real daemon makes of it.
fn entrypoint(words: Option<crate::wire::Words>) -> Vec<String> {
    words.unwrap_or_default().0
}

/// Exposed ports and the targets of published ones.
fn exposed(body: &CreateBody) -> Result<Vec<tripod_model::container::PortSpec>> {
    let mut all = ports::exposed(&body.exposed_ports)?;
    for b in ports::bindings(&body.host_config.port_bindings)? {
        if !all.contains(&b.target) {
            all.push(b.target);
        }
    }
    Ok(all)
}

/// Height and width, where the client gave them.
pub(crate) fn console_size(size: &[u16]) -> Option<(u16, u16)> {
    match size {
        [h, w] if *h > 0 && *w > 0 => Some((*h, *w)),
        _ => None,
    }
}

/// A restart policy, checked.
pub(crate) fn restart_policy(p: &wire::RestartPolicy) -> Result<RestartPolicy> {
    let invalid = |text: String| Error::invalid(text).at("HostConfig.RestartPolicy");
    let condition = match p.name.as_str() {
        "" | "no" => RestartCondition::No,
        "always" => RestartCondition::Always,
        "unless-stopped" => RestartCondition::UnlessStopped,
        "on-failure" => RestartCondition::OnFailure,
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            )));
        }
    };
    if p.maximum_retry_count != 0 && condition != RestartCondition::OnFailure {
        let extra = if p.maximum_retry_count < 0 {
            " and cannot be negative"
        } else {
            ""
        };
        return Err(invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'{extra}"
        )));
    }
    if p.maximum_retry_count < 0 {
        return Err(invalid(
            "invalid restart policy: maximum retry count cannot be negative".into(),
        ));
    }
    Ok(RestartPolicy {
        condition,
        max_retries: p.maximum_retry_count,
    })
}

const LOG_OPTIONS: [&str; 9] = [
    "max-size",
    "max-file",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
];

fn log_config(c: &wire::LogConfig) -> Result<LogConfig> {
    let driver = match c.r#type.as_str() {
        "" => "json-file",
        known @ ("json-file" | "local" | "none") => known,
        other => {
            return Err(Error::invalid(format_args!(
                "error looking up logging plugin {other}: plugin \"{other}\" not found"
            ))
            .at("HostConfig.LogConfig"));
        }
    };
    for (key, value) in &c.config {
        let known = LOG_OPTIONS.contains(&key.as_str()) || key == "max-buffer-size";
        if driver == "none" || !known {
            return Err(
                Error::invalid(format_args!("unknown log opt '{key}' for {driver} log driver"))
                    .at("HostConfig.LogConfig"),
            );
        }
        let ok = match key.as_str() {
            "max-file" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "compress" => matches!(value.as_str(), "true" | "false"),
            "mode" => matches!(value.as_str(), "blocking" | "non-blocking"),
            _ => true,
        };
        if !ok {
            return Err(
                Error::invalid(format_args!("invalid value for '{key}': {value}")).at("HostConfig.LogConfig")
            );
        }
    }
    Ok(LogConfig {
        driver: driver.to_owned(),
        options: c.config.clone(),
    })
}

/// A health check, checked.
pub(crate) fn healthcheck(h: &HealthConfig) -> Result<HealthCheck> {
    for (value, name) in [
        (h.interval, "Interval"),
        (h.timeout, "Timeout"),
        (h.start_period, "StartPeriod"),
        (h.start_interval, "StartInterval"),
    ] {
        // The shortest time that the real daemon takes is a millisecond.
        if value != 0 && value < 1_000_000 {
            return Err(
                Error::invalid(format_args!("{name} in Healthcheck cannot be less than 1ms"))
                    .at(format!("Healthcheck.{name}")),
            );
        }
    }
    if h.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative").at("Healthcheck.Retries"));
    }
    if let Some(kind) = h.test.first()
        && !matches!(kind.as_str(), "NONE" | "CMD" | "CMD-SHELL" | "")
    {
        let text = format!("Unknown healthcheck type '{kind}' (expected 'CMD')");
        return Err(Error::invalid(text).at("Healthcheck.Test"));
    }
    Ok(HealthCheck {
        test: h.test.clone(),
        interval: h.interval,
        timeout: h.timeout,
        start_period: h.start_period,
        start_interval: h.start_interval,
        retries: h.retries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    fn of(json: &str) -> Result<ContainerSpec> {
        spec(decode::<CreateBody>(json.as_bytes()).unwrap()).map(|(s, _)| s)
    }

    #[test]
    fn an_ordinary_request() {
        let s = of(r#"{"Image":"busybox","Cmd":["sh","-c","x"],"Entrypoint":"/e","Env":["A=b","GONE"],"Tty":true,
            "ExposedPorts":{"90/tcp":{}},"Volumes":{"/v":{}},"StopTimeout":3,"Labels":{"k":"v"},
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000},
            "HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8080"}]},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},
            "LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"Init":true,"ConsoleSize":[10,20]}}"#)
        .unwrap();
        assert_eq!(
            (s.entrypoint, s.command),
            (vec!["/e".to_owned()], vec!["sh".into(), "-c".into(), "x".into()])
        );
        let ports: Vec<_> = s.exposed_ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["90/tcp", "80/tcp"]);
        assert_eq!(
            (s.restart.condition, s.restart.max_retries),
            (RestartCondition::OnFailure, 3)
        );
        assert_eq!(
            (s.stop_timeout, s.init, s.console_size),
            (Some(3), true, Some((10, 20)))
        );
        assert_eq!(s.healthcheck.unwrap().interval, 1_000_000_000);
    }

    #[test]
    fn what_is_refused() {
        for (json, text) in [
            (
                r#"{"HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}"#,
                "unknown policy 'sometimes'",
            ),
            (
                r#"{"HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":2}}}"#,
                "can only be used with 'on-failure'",
            ),
            (
                r#"{"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-2}}}"#,
                "cannot be negative",
            ),
            (
                r#"{"HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}"#,
                "can't create 'AutoRemove' container with restart policy",
            ),
            (
                r#"{"HostConfig":{"LogConfig":{"Type":"syslog2"}}}"#,
                "error looking up logging plugin",
            ),
            (
                r#"{"HostConfig":{"LogConfig":{"Config":{"nope":"1"}}}}"#,
                "unknown log opt 'nope' for json-file log driver",
            ),
            (
                r#"{"Healthcheck":{"Interval":5}}"#,
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (
                r#"{"Healthcheck":{"Retries":-5}}"#,
                "Retries in Healthcheck cannot be negative",
            ),
            (
                r#"{"Healthcheck":{"Test":["RUN","x"]}}"#,
                "Unknown healthcheck type",
            ),
            (r#"{"Env":["=x"]}"#, "invalid environment variable: =x"),
            (r#"{"StopSignal":"SIGNOPE"}"#, "nvalid signal: SIGNOPE"),
            (r#"{"WorkingDir":"rel"}"#, "needs to be an absolute path"),
            (r#"{"Hostname":"no_good!"}"#, "invalid hostname format: no_good!"),
            (
                r#"{"HostConfig":{"Memory":5}}"#,
                "Minimum memory limit allowed is 6MB",
            ),
        ] {
            let json = json.replacen('{', r#"{"Image":"x","#, 1);
            let e = of(&json).unwrap_err();
            assert!(e.message.contains(text), "{json}: {e}");
        }
        assert!(of("{}").unwrap_err().message.contains("no image specified"));
    }
}
