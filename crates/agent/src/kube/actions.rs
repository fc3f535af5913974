//! What a pod's worker has done for it: starting and ending containers, each in a task of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tripod_model::container::ContainerStatus;
use tripod_model::k8s_openapi::api::core::v1::ResourceRequirements;
use tripod_model::session::PodEvent;
use tripod_model::{ErrorKind, Time};

use super::desc::{Desc, PodDesc};
use super::inputs::Inputs;
use super::place::Place;
use super::probes::{self, Probed};
use super::status::Ended;
use super::track::Note;
use super::translate::{Sources, describe};
use crate::ports::LogQuery;
use crate::record::{ContainerRecord, Owner};
use crate::{Agent, CreateContainer, RemoveOptions, StopOptions};

/// The longest termination message.
const MESSAGE: u64 = 4096;
/// The longest one that is taken from the log, in bytes and lines.
const FROM_LOG: (usize, usize) = (2048, 80);
/// A handler of the start may take as long as it likes, but not for ever.
const POST_START: Duration = Duration::from_secs(3600);
/// Seconds that are left for the stop signal however long the handler before it took.
const LEAST_GRACE: i64 = 2;

/// Tells the worker of events.
#[derive(Clone)]
pub(super) struct Notifier(pub mpsc::UnboundedSender<Note>);

impl Notifier {
    fn send(&self, warning: bool, field_path: String, reason: &str, message: &str) {
        let event = PodEvent {
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
            field_path,
            at: Some(Time::now()),
        };
        // The worker has ended: nobody would write it.
        let _ = self.0.send(Note::Event(event));
    }

    pub(super) fn note(&self, c: &Desc, reason: &str, message: &str) {
        self.send(false, c.field_path(), reason, message);
    }

    pub(super) fn warn(&self, c: &Desc, reason: &str, message: &str) {
        self.send(true, c.field_path(), reason, message);
    }

    pub(super) fn warn_pod(&self, reason: &str, message: &str) {
        self.send(true, String::new(), reason, message);
    }
}

/// Why a container cannot start now; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waits {
    pub reason: String,
    pub message: String,
    /// It is for its image: tried again less and less often.
    pub image: bool,
}

impl Waits {
    pub(super) fn image(reason: &str, message: String) -> Self {
        Self {
            reason: reason.into(),
            message,
            image: true,
        }
    }

    fn config(reason: &str, message: String) -> Self {
        Self {
            reason: reason.into(),
            message,
            image: false,
        }
    }
}

/// Why a start came to nothing.
pub(super) enum Failure {
    Waits(Waits),
    /// It counts as a run that ended.
    Ran(Ended),
}

/// A container that was started.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub id: String,
    pub image_id: String,
    pub at: Time,
    /// Requests and limits with which it was started.
    pub resources: Option<ResourceRequirements>,
    pub user: Option<(i64, i64, Vec<i64>)>,
}

/// What starting a container needs.
#[derive(Clone)]
pub(super) struct StartOrder {
    pub desc: Arc<PodDesc>,
    pub name: String,
    pub attempt: u32,
    pub place: Arc<Place>,
    pub inputs: Arc<Inputs>,
    pub running: BTreeMap<String, String>,
    pub notify: Notifier,
    /// Cancelled when the pod is to end.
    pub halt: CancellationToken,
}

/// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
pub(super) fn container_name(desc: &PodDesc, name: &str, attempt: u32) -> String {
    format!(
        "k8s_{name}_{}_{}_{}_{attempt}",
        desc.name(),
        desc.namespace(),
        desc.uid()
    )
}

impl Agent {
    /// File for the termination message of a run.
    pub(super) fn message_file(&self, uid: &str, name: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid)
            .join("containers")
            .join(name)
            .join(attempt.to_string())
    }

    /// Gets the image, makes the container and starts it.
    pub(super) async fn start_pod_container(&self, order: &StartOrder) -> Result<Begun, Failure> {
        let Some(c) = order.desc.get(&order.name) else {
            return Err(Failure::Waits(Waits::config(
                "CreateContainerConfigError",
                "it is not in the pod".into(),
            )));
        };
        let image = tokio::select! {
            image = self.pod_image(&order.desc, c, &order.inputs, &order.notify) => image.map_err(Failure::Waits)?,
            () = order.halt.cancelled() => {
                return Err(Failure::Waits(Waits::config("ContainerCreating", String::new())));
            }
        };
        let image_volumes = self.image_volumes(order, c).await.map_err(Failure::Waits)?;
        let file = self.message_file(order.desc.uid(), &order.name, order.attempt);
        let config = |e: tripod_model::Error| {
            order.notify.warn(c, "Failed", &format!("Error: {}", e.message));
            Failure::Waits(Waits::config("CreateContainerConfigError", e.message))
        };
        let written = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        written
            .and_then(|()| std::fs::write(&file, []))
            .map_err(|e| config(e.into()))?;
        let world_writable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&file, world_writable).map_err(|e| config(e.into()))?;
        let spec = describe(&Sources {
            desc: &order.desc,
            c,
            image: &image,
            inputs: &order.inputs,
            place: &order.place,
            image_volumes: &image_volumes,
            message: &file,
            running: &order.running,
            node_memory: i64::try_from(crate::host::HostFacts::read_memory()).unwrap_or(i64::MAX),
        })
        .map_err(config)?;
        let uid = order.desc.uid();
        let held = order.halt.run_until_cancelled(order.inputs.policies_hold(uid));
        held.await.unwrap_or(Ok(())).map_err(config)?;
        let name = container_name(&order.desc, &order.name, order.attempt);
        // Left by a daemon that died between making and starting it.
        if let Ok(left) = self.container(&name) {
            self.remove_run(&left).await;
        }
        let create = CreateContainer {
            name: Some(name),
            spec,
            owner: Owner::Pod {
                pod: order.desc.key(),
                uid: order.desc.uid().to_owned(),
                container: order.name.clone(),
                attempt: order.attempt,
            },
            endpoints: Vec::new(),
            image: Some(image.clone()),
        };
        let created = self.create_container(create).await.map_err(|e| {
            order.notify.warn(c, "Failed", &format!("Error: {}", e.message));
            Failure::Waits(Waits::config("CreateContainerError", e.message))
        })?;
        order
            .notify
            .note(c, "Created", &format!("Container created: {}", order.name));
        if let Err(e) = self.start_container(&created.id).await {
            order.notify.warn(c, "Failed", &format!("Error: {}", e.message));
            let now = Some(Time::now());
            return Err(Failure::Ran(Ended {
                id: created.id,
                code: if e.kind == ErrorKind::Invalid { 128 } else { 127 },
                reason: "StartError".into(),
                message: format!("failed to create containerd task: {}", e.message)
                    .replace("containerd ", ""),
                started: now,
                finished: now,
            }));
        }
        order
            .notify
            .note(c, "Started", &format!("Container started: {}", order.name));
        let record = self.container(&created.id).ok();
        Ok(Begun {
            resources: c.container.resources.clone(),
            at: record
                .as_ref()
                .and_then(|r| r.state.started_at)
                .unwrap_or_else(Time::now),
            user: record.and_then(|r| user_of(r.state.pid)),
            image_id: image_name(&image, &order.desc, &order.name),
            id: created.id,
        })
    }

    /// The handler after the start; an error is told, and the container is to end.
    pub(super) async fn post_start(&self, order: &StartOrder, id: &str) -> Result<(), String> {
        let c = order.desc.get(&order.name);
        let handler = c.and_then(|c| c.container.lifecycle.as_ref()?.post_start.as_ref());
        let (Some(c), Some(handler)) = (c, handler) else {
            return Ok(());
        };
        let probed = probed(c, id, &order.place);
        probes::hook(self, &probed, handler, POST_START)
            .await
            .inspect_err(|e| {
                order
                    .notify
                    .warn(c, "FailedPostStartHook", &format!("PostStartHook failed: {e}"));
            })
    }

    /// Ends a container in an orderly way, before `until`.
    pub(super) async fn stop_pod_container(
        &self,
        c: &Desc,
        id: &str,
        place: Option<&Place>,
        until: Instant,
        notify: &Notifier,
    ) {
        let left = || i64::try_from(until.saturating_duration_since(Instant::now()).as_secs()).unwrap_or(0);
        let handler = c.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        if let (Some(handler), Some(place)) = (handler, place)
            && left() > 0
        {
            let probed = probed(c, id, place);
            let patience = until.saturating_duration_since(Instant::now());
            let hook = probes::hook(self, &probed, handler, patience);
            match tokio::time::timeout(patience, hook).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => notify.warn(c, "FailedPreStopHook", &format!("PreStopHook failed: {e}")),
                Err(_) => notify.warn(
                    c,
                    "FailedPreStopHook",
                    "PreStopHook did not end within the grace period",
                ),
            }
        }
        let grace = match left() {
            0 if handler.is_none() => 0,
            seconds => seconds.max(LEAST_GRACE),
        };
        let options = StopOptions {
            timeout: Some(c.ext.stop_timeout.unwrap_or(grace)),
            signal: (grace == 0).then_some(crate::signals::SIGKILL),
        };
        if let Err(e) = self.stop_container(id, options).await
            && !matches!(e.kind, ErrorKind::NotModified | ErrorKind::NotFound)
        {
            notify.warn(
                c,
                "FailedKillPod",
                &format!("error killing container: {}", e.message),
            );
        }
    }

    /// Removes a run that ended.
    pub(super) async fn remove_run(&self, record: &ContainerRecord) {
        let options = RemoveOptions {
            force: true,
            volumes: true,
        };
        if let Err(e) = self.remove_container(&record.id, options).await
            && e.kind != ErrorKind::NotFound
        {
            tracing::warn!("{} stays: {e}", record.name);
        }
    }

    /// How a run ended.
    pub(super) async fn ended(&self, c: &Desc, record: &ContainerRecord) -> Ended {
        let state = &record.state;
        let never_ran = state.status == ContainerStatus::Created;
        let code = state.exit_code;
        let reason = match (state.oom_killed, never_ran, code) {
            (true, ..) => "OOMKilled",
            (_, true, _) => "StartError",
            (_, _, 0) => "Completed",
            _ => "Error",
        };
        let mut message = self.termination_message(record).await;
        let policy = c.container.termination_message_policy.as_deref();
        if message.is_empty() && code != 0 && policy == Some("FallbackToLogsOnError") {
            message = self.last_lines(record).await;
        }
        if message.is_empty() {
            message.clone_from(&state.error);
        }
        Ended {
            id: record.id.clone(),
            code,
            reason: reason.into(),
            message,
            started: state.started_at,
            finished: state.finished_at.or(state.started_at),
        }
    }

    async fn termination_message(&self, record: &ContainerRecord) -> String {
        use tokio::io::AsyncReadExt as _;
        let Owner::Pod {
            uid,
            container,
            attempt,
            ..
        } = &record.owner
        else {
            return String::new();
        };
        let mut bytes = Vec::new();
        if let Ok(file) = tokio::fs::File::open(self.message_file(uid, container, *attempt)).await {
            let _ = file.take(MESSAGE).read_to_end(&mut bytes).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn last_lines(&self, record: &ContainerRecord) -> String {
        let query = LogQuery {
            stdout: true,
            stderr: true,
            tail: Some(FROM_LOG.1),
            ..LogQuery::default()
        };
        let Ok(lines) = self.logs(&record.id, query).await else {
            return String::new();
        };
        let lines: Vec<_> = lines
            .filter_map(|l| async { l.ok() })
            .map(|l| l.data)
            .collect()
            .await;
        let all = lines.concat();
        let from = all.len().saturating_sub(FROM_LOG.0);
        String::from_utf8_lossy(&all[from..]).into_owned()
    }
}

/// A container as probes see it.
pub(super) fn probed(c: &Desc, id: &str, place: &Place) -> Probed {
    let address = place.addresses.pod.first().map(ToString::to_string);
    Probed {
        id: id.to_owned(),
        container: c.container.clone(),
        address: address.unwrap_or_else(|| "127.0.0.1".into()),
    }
}

/// `repository@sha256:…` of an image that has a digest there, else its own identifier.
fn image_name(image: &tripod_model::image::Image, desc: &PodDesc, name: &str) -> String {
    let asked = desc
        .get(name)
        .and_then(|c| c.container.image.clone())
        .unwrap_or_default();
    let reference = tripod_model::reference::Reference::parse(&asked).ok();
    let digest = image.manifest.as_ref().map(|m| m.digest.clone());
    match (reference, digest) {
        (Some(r), Some(digest)) => format!("{}/{}@{digest}", r.domain, r.path),
        _ => image.id.clone(),
    }
}

/// User, group and further groups of a process.
fn user_of(pid: i32) -> Option<(i64, i64, Vec<i64>)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = |key: &str| -> Vec<i64> {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.into_iter()
            .flat_map(str::split_whitespace)
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    let (uid, gid) = (*numbers("Uid:").first()?, *numbers("Gid:").first()?);
    Some((uid, gid, numbers("Groups:")))
}
