//! What a task asks of 169.254.170.2: metadata (version 4), credentials of its role, and protection of itself.
//!
//! The nodes lead that address to this endpoint. A request is known by the secret in its path, which only the task's
//! containers have in their environment.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value, json};
use tripod_edge::{Request, Response, full};
use tripod_engine::{Engine, Manager};
use tripod_model::Time;
use tripod_model::aws::AccessKeySpec;
use tripod_model::ecs::EcsContainer;
use tripod_model::pod::Pod;
use tripod_plan::ecs::{life, state};

use crate::door::Settings;
use crate::fault::Fault;
use crate::value::{Get as _, dense, some};
use crate::{ecs, iam, sts};

/// Seconds that credentials last.
const SESSION: i64 = 6 * 3600;

/// Whether a path is one of these.
pub(crate) fn is_meant(path: &str) -> bool {
    ["/v4/", "/v2/credentials/", "/api/"]
        .iter()
        .any(|p| path.starts_with(p))
}

/// Answers.
pub(crate) async fn answer(engine: &Engine, settings: &Settings, request: Request) -> Response {
    let (status, body) = match reply(engine, settings, request).await {
        Ok(value) => (200, value),
        Err(fault) => (
            fault.status,
            json!({ "code": fault.code, "message": fault.message }),
        ),
    };
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn not_found(text: &str) -> Fault {
    Fault::new("NotFound", text).status(404)
}

async fn reply(engine: &Engine, settings: &Settings, request: Request) -> Result<Value, Fault> {
    let manager = engine.manager()?;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let words: Vec<&str> = path.split('/').filter(|w| !w.is_empty()).collect();
    match words[..] {
        ["v4", id, container, ref rest @ ..] => {
            let pod = find(&manager, id)?;
            metadata(&manager, &pod, container, rest).await
        }
        ["v2", "credentials", id] => {
            let pod = find(&manager, id)?;
            credentials(&manager, settings, &pod).await
        }
        ["api", id, _, "task-protection", "v1", "state"] => {
            let pod = find(&manager, id)?;
            if parts.method == http::Method::GET {
                return Ok(protection(&pod));
            }
            let sent = Limited::new(body, 1 << 16)
                .collect()
                .await
                .map_err(|_| not_found("the body cannot be read"))?;
            let wish: Value = serde_json::from_slice(&sent.to_bytes()).unwrap_or_default();
            protect(&manager, &pod, &wish).await
        }
        _ => Err(not_found("there is no such endpoint")),
    }
}

/// The task with this secret.
fn find(manager: &Manager, endpoint: &str) -> Result<Arc<Pod>, Fault> {
    let of =
        |p: &&Arc<Pod>| p.ecs().is_some_and(|t| t.endpoint_id == endpoint) && state(p).stopped_at.is_none();
    let found = manager.with_view(|v| v.ecs().all_tasks().find(of).cloned());
    found.ok_or_else(|| not_found("there is no such task"))
}

async fn metadata(manager: &Manager, pod: &Pod, container: &str, rest: &[&str]) -> Result<Value, Fault> {
    let task = pod.ecs().ok_or_else(|| not_found("there is no such task"))?;
    let own = task.containers.iter().find(|c| c.id == container);
    let own = own.ok_or_else(|| not_found("there is no such container"))?;
    match rest {
        [] => Ok(dense(container_metadata(pod, own))),
        ["task"] => Ok(dense(task_metadata(manager, pod, false))),
        ["taskWithTags"] => Ok(dense(task_metadata(manager, pod, true))),
        ["stats"] => {
            let all = stats(manager, pod).await?;
            all.into_iter()
                .find(|(id, _)| *id == own.pod_name)
                .map(|(_, v)| v)
                .ok_or_else(|| not_found("no stats yet"))
        }
        ["task", "stats"] => {
            let seen = life::containers(pod);
            let all = stats(manager, pod).await?;
            let by_id = all.into_iter().map(|(name, v)| {
                let id = seen.get(&name).map(|o| o.runtime_id.clone()).unwrap_or_default();
                (id, v)
            });
            Ok(Value::Object(Map::from_iter(by_id)))
        }
        _ => Err(not_found("there is no such endpoint")),
    }
}

fn iso(t: Option<Time>) -> Value {
    t.map_or(Value::Null, |t| {
        t.strftime("%Y-%m-%dT%H:%M:%S.%fZ").to_string().into()
    })
}

fn task_metadata(manager: &Manager, pod: &Pod, tags: bool) -> Value {
    let stored = manager.db().snapshot();
    let Some(t) = pod.ecs() else { return Value::Null };
    let s = state(pod);
    let (family, revision) = ecs::last_part(&t.definition).rsplit_once(':').unwrap_or_default();
    let amount = |text: &str, unit: f64| text.parse::<f64>().ok().map(|n| n / unit);
    let containers: Value = t.containers.iter().map(|c| container_metadata(pod, c)).collect();
    let subnet = t.interface.as_ref().map(|i| i.subnet.as_str());
    let vpc = subnet.and_then(|s| crate::ec2::vpc_of_subnet(&stored, &t.region, s));
    json!({
        "Cluster": format!("arn:aws:ecs:{}:{}:cluster/{}", t.region, t.account, t.cluster),
        "TaskARN": ecs::task_arn(pod), "Family": family, "Revision": revision, "DesiredStatus": life::desired(pod),
        "KnownStatus": s.last_status, "Limits": { "CPU": amount(&t.cpu, 1024.0), "Memory": amount(&t.memory, 1.0) },
        "PullStartedAt": iso(s.pull_started_at), "PullStoppedAt": iso(s.pull_stopped_at),
        "AvailabilityZone": ecs::zone(&stored, pod), "LaunchType": t.launch_type, "Containers": containers,
        "ServiceName": some(&t.service), "VPCID": vpc,
        "TaskTags": if tags { json!(s.tags) } else { Value::Null },
    })
}

fn container_metadata(pod: &Pod, c: &EcsContainer) -> Value {
    let Some(t) = pod.ecs() else { return Value::Null };
    let s = state(pod);
    let seen = life::containers(pod).remove(&c.pod_name).unwrap_or_default();
    let status = if seen.ended {
        "STOPPED"
    } else if seen.running {
        "RUNNING"
    } else {
        "PENDING"
    };
    let (family, revision) = ecs::last_part(&t.definition).rsplit_once(':').unwrap_or_default();
    let address = pod.status.pod_ip.map(|ip| ip.to_string());
    let networks = address.map(|a| {
        json!([{ "NetworkMode": if t.interface.is_some() { "awsvpc" } else { "bridge" }, "IPv4Addresses": [a],
                 "MACAddress": t.interface.as_ref().map(|i| i.mac.clone()),
                 "PrivateDNSName": crate::ec2::private_dns_name(&t.region, &a) }])
    });
    let extension = pod.extension.containers.get(&c.pod_name);
    json!({
        "DockerId": some(&seen.runtime_id), "Name": c.name, "DockerName": c.name, "Image": c.image,
        "ImageID": some(&seen.image_digest), "Labels": extension.map(|e| json!(e.labels)), "DesiredStatus": life::desired(pod),
        "KnownStatus": status, "ExitCode": seen.exit_code, "Limits": { "CPU": c.cpu, "Memory": c.memory },
        "CreatedAt": iso(s.pull_stopped_at), "StartedAt": iso(s.started_at), "Type": "NORMAL",
        "ContainerARN": format!("arn:aws:ecs:{}:{}:container/{}/{}/{}", t.region, t.account, t.cluster, t.id, c.id),
        "LogDriver": c.logs.as_ref().map(|_| "awslogs"),
        "LogOptions": c.logs.as_ref().map(|l| json!({
            "awslogs-group": l.group, "awslogs-region": l.region, "awslogs-stream": l.stream })),
        "Networks": networks,
        "Snapshotter": Value::Null, "TaskDefinitionFamily": family, "TaskDefinitionRevision": revision,
    })
}

/// Readings of a task's containers, in the form of Docker's stats, by name in the pod.
async fn stats(manager: &Manager, pod: &Pod) -> Result<Vec<(String, Value)>, Fault> {
    let reading = manager.door(&pod.spec.node_name)?.stats().await?;
    let of = reading.pods.iter().find(|p| p.uid == pod.metadata.uid);
    let of = of.ok_or_else(|| not_found("no stats yet"))?;
    let read = iso(reading.at);
    let network = of
        .network
        .map(|(received, sent)| json!({ "eth0": { "rx_bytes": received, "tx_bytes": sent } }));
    let all = of.containers.iter().map(|c| {
        let value = dense(json!({
            "read": read, "id": c.id, "name": c.name, "networks": network,
            "cpu_stats": { "cpu_usage": { "total_usage": c.usage.cpu_nanos } },
            "memory_stats": { "usage": c.usage.memory_usage, "stats": { "rss": c.usage.memory_rss } },
        }));
        (c.name.clone(), value)
    });
    Ok(all.collect())
}

/// A session of the task's role.
async fn credentials(manager: &Arc<Manager>, settings: &Settings, pod: &Pod) -> Result<Value, Fault> {
    let t = pod.ecs().ok_or_else(|| not_found("there is no such task"))?;
    let role = iam::find_role(&manager.db().snapshot(), ecs::last_part(&t.task_role))?;
    let role = role.ok_or_else(|| not_found("the task has no role"))?.spec;
    if !tripod_plan::iam::trusts_service(&role.trust, "ecs-tasks.amazonaws.com") {
        let text = format!(
            "The role {} does not let ecs-tasks.amazonaws.com assume it.",
            role.name
        );
        return Err(Fault::new("AccessDenied", text).status(403));
    }
    let spec = AccessKeySpec {
        session_arn: format!(
            "arn:aws:sts::{}:assumed-role/{}/{}",
            settings.account, role.name, t.id
        ),
        session_id: format!("{}:{}", role.id, t.id),
        session_role: role.name.clone(),
        ..AccessKeySpec::default()
    };
    let made = sts::make_session(manager, spec, SESSION).await?;
    Ok(json!({
        "RoleArn": t.task_role, "AccessKeyId": made.spec.id, "SecretAccessKey": made.spec.secret,
        "Token": made.spec.token, "Expiration": made.spec.expires.map(|e| e.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    }))
}

fn protection(pod: &Pod) -> Value {
    let until = state(pod).protected_until.filter(|t| *t > Time::now());
    dense(json!({ "protection": {
        "TaskArn": ecs::task_arn(pod), "ProtectionEnabled": until.is_some(), "ExpirationDate": iso(until),
    } }))
}

async fn protect(manager: &Manager, pod: &Pod, wish: &Value) -> Result<Value, Fault> {
    let on = wish.flag("ProtectionEnabled");
    let on = on.ok_or_else(|| Fault::new("InvalidParameterException", "ProtectionEnabled is missing."))?;
    if pod.ecs().is_none_or(|t| t.service.is_empty()) {
        return Err(Fault::new(
            "InvalidParameterException",
            "The task is not part of a service.",
        ));
    }
    let minutes = wish.number("ExpiresInMinutes").unwrap_or(120).clamp(1, 2880);
    let until = on.then(|| life::after(Time::now(), minutes * 60));
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let done = manager.db().modify(namespace, name, |p: &mut Pod| {
        p.state.ecs.get_or_insert_default().protected_until = until;
        Ok::<(), Fault>(())
    });
    let (pod, ()) = done.await?.ok_or_else(|| not_found("there is no such task"))?;
    Ok(protection(&pod))
}
