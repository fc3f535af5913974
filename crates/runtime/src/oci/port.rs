//! The methods of the port.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::oneshot;
use tripod_agent::ports::{
    Adopted, BoxStream, ExecRequest, LogLine, LogQuery, Runtime, RuntimeEvent, RuntimeInfo, StartRequest,
    Started, Stats, Streams,
};
use tripod_model::container::Resources;
use tripod_model::{Error, Result};

use super::{BUILTIN, Entry, OciRuntime, Shared, blocking, files, namespaces, notices, start, streams};
use crate::cgroup::{Cgroup, Limits};
use crate::filter::Filters;
use crate::keeper::wire::{ExecOrder, Reply, Request};
use crate::logs::reader;
use crate::spec::{self, user};

impl Shared {
    /// Runs blocking work on a running container.
    async fn with<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(Entry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let entry = self.running(id)?;
        blocking(move || work(entry)).await
    }

    async fn exec(&self, id: &str, request: ExecRequest) -> Result<(Streams, i32)> {
        let entry = self.running(id)?;
        let (dir, bounding, name) = (self.dir(id), self.host.bounding, id.to_owned());
        let filters = self.filters.clone();
        let stdin = request.stdin;
        let order = blocking(move || exec_order(&name, &dir, &request, &entry, (bounding, &filters))).await?;
        match self
            .client
            .call(Request::Exec(Box::new(order)), Vec::new())
            .await?
        {
            (Reply::Pid { pid }, fds) => Ok((streams::streams(fds, stdin)?, pid)),
            _ => Err(Error::internal("the keeper gave a wrong answer")),
        }
    }

    /// Knows a container from the keeper's record.
    fn learn(&self, record: &crate::keeper::wire::Record) -> Result<()> {
        let id = &record.order.id;
        // Those who watch an entry go on watching it.
        if let Some(known) = self.entries().get_mut(id).filter(|e| e.run == record.order.run) {
            known.pid = record.pid;
            return Ok(());
        }
        let kept = self.kept(id)?;
        let entry = Entry {
            pid: record.pid,
            run: record.order.run,
            cgroup: self.cgroup(id, &kept.cgroup_parent)?,
            kept: kept.into(),
            running: tokio::sync::watch::Sender::new(record.exit.is_none()).into(),
        };
        self.entries().insert(id.clone(), entry);
        Ok(())
    }
}

fn exec_order(
    id: &str,
    dir: &std::path::Path,
    request: &ExecRequest,
    entry: &Entry,
    (bounding, filters): (spec::caps::Set, &Filters),
) -> Result<ExecOrder> {
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
    let root: PathBuf = serde_json::from_value(config["root"]["path"].clone())?;
    let who = match request.user.as_str() {
        "" => None,
        user => Some(user::resolve(&root, user, &[])?),
    };
    Ok(ExecOrder {
        id: id.to_owned(),
        exec_id: request.exec_id.clone(),
        process: spec::exec_process(&config["process"], request, who.as_ref(), bounding)?,
        filter: if request.privileged || entry.kept.oci_runtime.is_some() {
            None
        } else {
            match &entry.kept.filter {
                Some(path) => Some(path.clone()),
                // Started by an earlier version, which left the profile in the document.
                None => filters.compiled(&config["linux"]["seccomp"])?,
            }
        },
        oci_runtime: entry.kept.oci_runtime.clone(),
        tty: request.tty,
        console_size: request.console_size,
        stdin: request.stdin,
        join: if entry.kept.oci_runtime.is_some() {
            Vec::new()
        } else {
            entry.cgroup.all_procs()
        },
    })
}

#[async_trait]
impl Runtime for OciRuntime {
    async fn adopt(&self) -> Result<Vec<Adopted>> {
        let (Reply::List { containers }, _) = self.shared.client.call(Request::List, Vec::new()).await?
        else {
            return Err(Error::internal("the keeper gave a wrong answer"));
        };
        let shared = self.shared.clone();
        blocking(move || {
            let mut all = Vec::new();
            for record in containers {
                if let Err(e) = shared.learn(&record) {
                    tracing::warn!(id = record.order.id, "container not adopted: {e}");
                    continue;
                }
                let id = record.order.id;
                let paused = record.exit.is_none() && shared.running(&id).is_ok_and(|e| e.cgroup.is_frozen());
                if record.exit.is_some() {
                    if let Some(e) = shared.entries().get(&id).cloned() {
                        let _ = e.cgroup.remove();
                    }
                    files::release(&shared.dir(&id));
                }
                let exit = record
                    .exit
                    .map(|e| notices::exit_of(id.clone(), record.order.run, &e));
                let pid = if exit.is_some() { 0 } else { record.pid };
                all.push(Adopted {
                    id,
                    run: record.order.run,
                    pid,
                    paused,
                    exit,
                });
            }
            shared.remove_strays(&all);
            Ok(all)
        })
        .await
    }

    fn events(&self) -> BoxStream<RuntimeEvent> {
        let taken = self
            .events
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        match taken {
            Some(rx) => tokio_stream::wrappers::UnboundedReceiverStream::new(rx).boxed(),
            None => futures::stream::empty().boxed(),
        }
    }

    async fn start(&self, request: StartRequest) -> Result<Started> {
        start::start(&self.shared, request).await
    }

    async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        let entry = self.shared.running(id)?;
        self.shared
            .client
            .call(
                Request::Signal {
                    id: id.to_owned(),
                    signal,
                },
                Vec::new(),
            )
            .await?;
        if signal == libc::SIGKILL {
            blocking(move || {
                if entry.kept.shared_pid {
                    entry.cgroup.kill();
                }
                if entry.cgroup.is_frozen() {
                    // A frozen process dies only when it is thawed.
                    entry.cgroup.freeze(false)?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn pause(&self, id: &str) -> Result<()> {
        self.shared.with(id, |e| e.cgroup.freeze(true)).await
    }

    async fn unpause(&self, id: &str) -> Result<()> {
        self.shared.with(id, |e| e.cgroup.freeze(false)).await
    }

    async fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        let limits = self.shared.limits(resources)?;
        self.shared
            .with(id, move |e| limits.apply(&e.cgroup).map(drop))
            .await
    }

    async fn keep_namespaces(&self, dir: &std::path::Path, hostname: &str, processes: bool) -> Result<()> {
        let (dir, hostname) = (dir.to_owned(), hostname.to_owned());
        blocking(move || {
            namespaces::keep(&dir, &hostname)?;
            if processes {
                super::processes::keep(&dir)?;
            }
            Ok(())
        })
        .await
    }

    async fn drop_namespaces(&self, dir: &std::path::Path) -> Result<()> {
        let dir = dir.to_owned();
        blocking(move || {
            super::processes::drop_kept(&dir)?;
            namespaces::drop_kept(&dir)
        })
        .await
    }

    async fn group(&self, path: &str, resources: &Resources) -> Result<()> {
        let limits = self.shared.limits(resources)?;
        let cgroup = self.shared.group(path, "")?;
        blocking(move || cgroup.create(&limits).map(drop)).await
    }

    async fn remove_group(&self, path: &str) -> Result<()> {
        let cgroup = self.shared.group(path, "")?;
        blocking(move || Ok(cgroup.remove()?)).await
    }

    async fn acknowledge_exit(&self, id: &str, run: u64) -> Result<()> {
        self.shared
            .client
            .call(
                Request::Acknowledge {
                    id: id.to_owned(),
                    run,
                },
                Vec::new(),
            )
            .await
            .map(drop)
    }

    async fn remove(&self, id: &str) -> Result<()> {
        if self.shared.running(id).is_ok() {
            return Err(Error::conflict(format!("container {id} is running")));
        }
        let kept = self.shared.kept(id).ok();
        self.shared.entries().remove(id);
        self.shared
            .client
            .call(Request::Forget { id: id.to_owned() }, Vec::new())
            .await?;
        let (shared, id) = (self.shared.clone(), id.to_owned());
        blocking(move || {
            let dir = shared.dir(&id);
            let parent = kept.map(|k| k.cgroup_parent).unwrap_or_default();
            if let Ok(cgroup) = shared.cgroup(&id, &parent) {
                cgroup.remove()?;
            }
            files::release(&dir);
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn attach(&self, id: &str) -> Result<Streams> {
        let entry = self.shared.running(id)?;
        let (_, fds) = self
            .shared
            .client
            .call(
                Request::Attach {
                    id: id.to_owned(),
                    next: false,
                },
                Vec::new(),
            )
            .await?;
        streams::streams(fds, entry.kept.stdin)
    }

    async fn attach_next(&self, id: &str) -> Result<Streams> {
        let (_, fds) = self
            .shared
            .client
            .call(
                Request::Attach {
                    id: id.to_owned(),
                    next: true,
                },
                Vec::new(),
            )
            .await?;
        // Whether there will be an input is not known before the start; one that nobody reads takes no harm.
        streams::streams(fds, true)
    }

    async fn resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let call = Request::Resize {
            id: id.to_owned(),
            exec_id: None,
            height,
            width,
        };
        self.shared.client.call(call, Vec::new()).await.map(drop)
    }

    async fn exec(&self, id: &str, request: ExecRequest) -> Result<(Streams, i32)> {
        self.shared.exec(id, request).await
    }

    async fn resize_exec(&self, id: &str, exec_id: &str, height: u16, width: u16) -> Result<()> {
        let call = Request::Resize {
            id: id.to_owned(),
            exec_id: Some(exec_id.to_owned()),
            height,
            width,
        };
        self.shared.client.call(call, Vec::new()).await.map(drop)
    }

    async fn exec_sync(
        &self,
        id: &str,
        request: ExecRequest,
        timeout: Duration,
        limit: usize,
    ) -> Result<(Option<i64>, Bytes)> {
        let exec_id = request.exec_id.clone();
        let (tx, rx) = oneshot::channel();
        self.shared.waits().insert(exec_id.clone(), tx);
        let started = self
            .shared
            .exec(
                id,
                ExecRequest {
                    tty: false,
                    stdin: false,
                    ..request
                },
            )
            .await;
        let (mut streams, _) = started.inspect_err(|_| {
            self.shared.waits().remove(&exec_id);
        })?;
        let mut output = BytesMut::new();
        let finished = tokio::time::timeout(timeout, async {
            while let Some(chunk) = streams.output.next().await {
                let data = chunk?.data;
                output.extend_from_slice(&data[..data.len().min(limit - output.len())]);
            }
            rx.await
                .map_err(|_| Error::unavailable("the keeper was lost during the check"))
        })
        .await;
        match finished {
            Ok(code) => Ok((Some(code?), output.freeze())),
            Err(_) => {
                let _ = self
                    .shared
                    .client
                    .call(Request::KillExec { exec_id }, Vec::new())
                    .await;
                Ok((None, output.freeze()))
            }
        }
    }

    async fn logs(&self, id: &str, query: LogQuery) -> Result<BoxStream<Result<LogLine>>> {
        let kept = self.shared.kept(id)?;
        let running = self.shared.entries().get(id).map(|e| e.running.subscribe());
        reader::read(kept.log, query, running)
    }

    fn log_path(&self, id: &str) -> Option<PathBuf> {
        self.shared
            .kept(id)
            .ok()
            .map(|k| k.log.path)
            .filter(|p| !p.as_os_str().is_empty())
    }

    async fn stats(&self, id: &str) -> Result<Stats> {
        self.shared
            .with(id, |e| crate::cgroup::stats::read(&e.cgroup))
            .await
            .map(|s| self.shared.bounded(s))
    }

    async fn node_usage(&self) -> Option<Stats> {
        let shared = self.shared.clone();
        if shared.node_limits == Limits::default() {
            return None;
        }
        let read = blocking(move || {
            let cgroup = Cgroup::new(&shared.mounts, &shared.options.node_group, "")?;
            crate::cgroup::stats::read(&cgroup).map(|s| shared.bounded(s))
        });
        read.await.ok()
    }

    async fn pids(&self, id: &str) -> Result<Vec<i32>> {
        self.shared.with(id, |e| e.cgroup.pids()).await
    }

    fn info(&self) -> RuntimeInfo {
        let shared = &self.shared;
        let v2 = shared.mounts.is_v2();
        let has = |file: &str| shared.mounts.v1.iter().any(|(_, m)| m.join(file).exists());
        let features = vec![
            ("MemoryLimit", v2 || has("memory.limit_in_bytes")),
            ("SwapLimit", v2 || has("memory.memsw.limit_in_bytes")),
            ("CpuCfsPeriod", v2 || has("cpu.cfs_period_us")),
            ("CpuCfsQuota", v2 || has("cpu.cfs_quota_us")),
            ("CPUShares", v2 || has("cpu.shares")),
            ("CPUSet", v2 || has("cpuset.cpus")),
            ("PidsLimit", v2 || shared.mounts.controller("pids").is_some()),
            ("OomKillDisable", has("memory.oom_control")),
        ];
        let mut runtimes = vec![(BUILTIN.to_owned(), String::new())];
        runtimes.extend(
            shared
                .options
                .runtimes
                .iter()
                .map(|(n, p)| (n.clone(), p.display().to_string())),
        );
        let mut security_options = Vec::new();
        let mut warnings: Vec<String> = Vec::new();
        if shared.host.seccomp {
            security_options.push("name=seccomp,profile=builtin".to_owned());
        }
        if v2 {
            security_options.push("name=cgroupns".to_owned());
            warnings.push("WARNING: No device filter on cgroup v2: containers are held off devices by capabilities and their own /dev only".into());
        }
        for (name, text) in [
            ("MemoryLimit", "memory"),
            ("SwapLimit", "swap"),
            ("PidsLimit", "pids"),
        ] {
            if features.iter().any(|(n, on)| *n == name && !on) {
                warnings.push(format!("WARNING: No {text} limit support"));
            }
        }
        RuntimeInfo {
            default_runtime: shared.options.default_runtime.clone(),
            runtimes,
            cgroup_version: if v2 { "2" } else { "1" }.into(),
            cgroup_driver: "cgroupfs".into(),
            features,
            security_options,
            warnings,
        }
    }
}
