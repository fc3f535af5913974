//! Probes of running containers and the handlers of their lifecycle.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tripod_model::k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe,
};
use tripod_model::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::http::{self, Get};
use crate::ports::ExecRequest;
use crate::{Agent, names};

/// Bytes of a probe's output that are shown.
const SHOWN: usize = 10 << 10;
const PROBE_AGENT: &str = "kube-probe/1.36";
const HOOK_AGENT: &str = "kube-lifecycle/1.36";

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// The running container that is probed.
#[derive(Debug, Clone)]
pub(super) struct Probed {
    pub id: String,
    pub container: Container,
    /// Address of the pod.
    pub address: String,
}

/// Counts results; pure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Streak {
    last: Option<bool>,
    count: i32,
}

impl Streak {
    /// Takes a result over; the verdict once the threshold is reached.
    pub(super) fn count(&mut self, ok: bool, success: i32, failure: i32) -> Option<bool> {
        if self.last == Some(ok) {
            self.count = self.count.saturating_add(1);
        } else {
            (self.last, self.count) = (Some(ok), 1);
        }
        let threshold = if ok { success } else { failure };
        (self.count >= threshold).then_some(ok)
    }
}

/// Probes until `token` is cancelled; each result is told: whether it passed, the verdict if there is one, and the
/// text of a failure.
pub(super) async fn watch(
    agent: &Agent,
    probed: &Probed,
    kind: Kind,
    probe: &Probe,
    token: &CancellationToken,
    mut told: impl FnMut(bool, Option<bool>, String) -> bool,
) {
    let seconds = |n: Option<i32>, default: i32| Duration::from_secs(n.unwrap_or(default).max(0) as u64);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let success = match kind {
        Kind::Readiness => probe.success_threshold.unwrap_or(1).max(1),
        _ => 1,
    };
    let failure = probe.failure_threshold.unwrap_or(3).max(1);
    let mut streak = Streak::default();
    let mut next = Instant::now() + seconds(probe.initial_delay_seconds, 0);
    loop {
        // The period of the probe is a time to wait for, not an event.
        let wait = tokio::time::sleep_until(next);
        if token.run_until_cancelled(wait).await.is_none() {
            return;
        }
        let Some(result) = token
            .run_until_cancelled(once(agent, probed, probe, timeout))
            .await
        else {
            return;
        };
        let ok = result.is_ok();
        let verdict = streak.count(ok, success, failure);
        if !told(ok, verdict, result.err().unwrap_or_default()) {
            return;
        }
        next = (next + period).max(Instant::now());
    }
}

async fn once(agent: &Agent, probed: &Probed, probe: &Probe, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return run(agent, probed, exec, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let request = request(probed, action, PROBE_AGENT)?;
        return match http::get(&request, timeout).await? {
            (200..400, _) => Ok(()),
            (status, _) => Err(format!("HTTP probe failed with statuscode: {status}")),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = port(&probed.container, &action.port)?;
        let host = action
            .host
            .as_deref()
            .filter(|h| !h.is_empty())
            .unwrap_or(&probed.address);
        return match tokio::time::timeout(timeout, http::connect(host, port)).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        let service = action.service.as_deref().unwrap_or_default();
        return http::grpc(&probed.address, port, service, timeout).await;
    }
    Err("the probe has no handler".into())
}

async fn run(agent: &Agent, probed: &Probed, exec: &ExecAction, timeout: Duration) -> Result<(), String> {
    let request = ExecRequest {
        exec_id: names::new_id(),
        command: exec.command.clone().unwrap_or_default(),
        ..ExecRequest::default()
    };
    match agent
        .runtime()
        .exec_sync(&probed.id, request, timeout, SHOWN)
        .await
    {
        Ok((Some(0), _)) => Ok(()),
        Ok((Some(_), output)) => Err(String::from_utf8_lossy(&output).into_owned()),
        Ok((None, _)) => Err(format!(
            "command timed out: \"{}\" timed out after {timeout:?}",
            exec.command.clone().unwrap_or_default().join(" ")
        )),
        Err(e) => Err(e.message),
    }
}

fn request(probed: &Probed, action: &HTTPGetAction, agent: &'static str) -> Result<Get, String> {
    let host = action
        .host
        .as_deref()
        .filter(|h| !h.is_empty())
        .unwrap_or(&probed.address);
    let headers = action.http_headers.iter().flatten();
    Ok(Get {
        host: host.to_owned(),
        port: port(&probed.container, &action.port)?,
        path: action.path.clone().unwrap_or_else(|| "/".into()),
        tls: action
            .scheme
            .as_deref()
            .is_some_and(|s| s.eq_ignore_ascii_case("https")),
        headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        agent,
    })
}

/// A port by number, or by its name among the container's ports.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| match port {
            IntOrString::Int(n) => format!("invalid port number: {n}"),
            IntOrString::String(name) => format!("couldn't find port named \"{name}\" in container"),
        })
}

/// Runs a handler of the lifecycle.
pub(super) async fn hook(
    agent: &Agent,
    probed: &Probed,
    handler: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return run(agent, probed, exec, timeout).await;
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        // What was asked for is the passing of time.
        tokio::time::sleep(seconds.min(timeout)).await;
        return Ok(());
    }
    if let Some(action) = &handler.http_get {
        let request = request(probed, action, HOOK_AGENT)?;
        return match http::get(&request, timeout).await? {
            (200..400, _) => Ok(()),
            (status, _) => Err(format!("HTTP hook failed with statuscode: {status}")),
        };
    }
    if let Some(action) = &handler.tcp_socket {
        let port = port(&probed.container, &action.port)?;
        let host = action
            .host
            .as_deref()
            .filter(|h| !h.is_empty())
            .unwrap_or(&probed.address);
        return match tokio::time::timeout(timeout, http::connect(host, port)).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let mut streak = Streak::default();
        let verdicts: Vec<_> = [false, false, true, false, false, false, true, true]
            .into_iter()
            .map(|ok| streak.count(ok, 2, 3))
            .collect();
        assert_eq!(
            verdicts,
            [None, None, None, None, None, Some(false), None, Some(true)]
        );
    }

    #[test]
    fn ports_have_names() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "a", "ports": [{"name": "web", "containerPort": 80}]
        }))
        .unwrap();
        assert_eq!(port(&container, &IntOrString::String("web".into())), Ok(80));
        assert_eq!(port(&container, &IntOrString::Int(81)), Ok(81));
        assert!(port(&container, &IntOrString::String("x".into())).is_err());
        assert!(port(&container, &IntOrString::Int(0)).is_err());
    }
}
