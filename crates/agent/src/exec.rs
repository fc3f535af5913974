//! Processes run in a container besides its first one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tripod_model::container::ContainerStatus;
use tripod_model::{Error, Result};

use crate::ports::{ExecRequest, Streams};
use crate::record::ExecRecord;
use crate::{Agent, names};

/// Ended execs kept per container, so that their exit codes can be asked for.
const KEPT_ENDED: usize = 64;
/// The status of an exec whose end nobody saw.
const UNKNOWN_EXIT: i64 = 255;
/// The status of an exec that ended with its container.
const KILLED_EXIT: i64 = 137;

/// Execs by identifier.
#[derive(Default)]
pub(crate) struct Execs {
    map: Mutex<HashMap<String, ExecRecord>>,
    /// Identifiers in order of creation, for forgetting the oldest.
    order: Mutex<Vec<String>>,
    /// Told of each end.
    ended: tokio::sync::Notify,
}

impl Execs {
    fn get(&self, id: &str) -> Option<ExecRecord> {
        self.map
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    fn modify(&self, id: &str, change: impl FnOnce(&mut ExecRecord)) {
        if let Some(record) = self
            .map
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(id)
        {
            change(record);
        }
    }

    fn insert(&self, record: ExecRecord) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push(record.id.clone());
        map.insert(record.id.clone(), record);
        if order.len() > KEPT_ENDED {
            let ended = order
                .iter()
                .position(|id| map.get(id).is_none_or(|r| r.exit_code.is_some()));
            if let Some(oldest) = ended {
                map.remove(&order.remove(oldest));
            }
        }
    }

    pub(crate) fn forget_container(&self, container: &str) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, r| r.container != container);
        self.order
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id| map.contains_key(id));
    }
}

impl Agent {
    /// Prepares a process to be run in a running container; `request.exec_id` is chosen here.
    pub fn create_exec(
        &self,
        reference: &str,
        mut request: ExecRequest,
        attach: (bool, bool, bool),
        detach_keys: String,
    ) -> Result<String> {
        let record = self.container(reference)?;
        runs(&record)?;
        if request.command.is_empty() {
            return Err(Error::invalid("No exec command specified").at("Cmd"));
        }
        let id = names::new_id();
        request.exec_id.clone_from(&id);
        request.stdin = attach.0;
        let line = request.command.join(" ");
        self.inner.execs.insert(ExecRecord {
            id: id.clone(),
            container: record.id.clone(),
            request,
            attach,
            detach_keys,
            running: false,
            pid: 0,
            exit_code: None,
        });
        self.container_event(
            &record,
            &format!("exec_create: {line}"),
            &[("execID", id.clone())],
        );
        Ok(id)
    }

    /// Runs it. The streams end with the process.
    pub async fn start_exec(&self, id: &str, console_size: Option<(u16, u16)>) -> Result<Streams> {
        let mut exec = self.exec(id)?;
        if exec.exit_code.is_some() || exec.running {
            return Err(Error::conflict(format_args!("exec {id} has already run")));
        }
        let record = self.container(&exec.container)?;
        runs(&record)?;
        if console_size.is_some() {
            exec.request.console_size = console_size;
        }
        self.inner.execs.modify(id, |e| e.running = true);
        let line = exec.request.command.join(" ");
        self.container_event(
            &record,
            &format!("exec_start: {line}"),
            &[("execID", id.to_owned())],
        );
        match self.runtime().exec(&record.id, exec.request).await {
            Ok((streams, pid)) => {
                self.inner.execs.modify(id, |e| e.pid = pid);
                Ok(streams)
            }
            Err(e) => {
                let text = e.message.to_ascii_lowercase();
                let code = if text.contains("permission denied") {
                    126
                } else {
                    127
                };
                self.inner.execs.modify(id, |x| {
                    x.running = false;
                    x.exit_code = Some(code);
                });
                Err(e)
            }
        }
    }

    /// What is known of an exec.
    pub fn exec(&self, id: &str) -> Result<ExecRecord> {
        self.inner
            .execs
            .get(id)
            .ok_or_else(|| Error::not_found(format_args!("No such exec instance: {id}")))
    }

    /// Identifiers of a container's execs that have not ended.
    pub fn exec_ids(&self, container: &str) -> Vec<String> {
        let map = self
            .inner
            .execs
            .map
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        map.values()
            .filter(|e| e.container == container && e.exit_code.is_none())
            .map(|e| e.id.clone())
            .collect()
    }

    /// Size of an exec's terminal.
    pub async fn resize_exec(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.exec(id)?;
        if !exec.running {
            return Err(Error::conflict(format_args!("exec process {id} is not running")));
        }
        self.runtime()
            .resize_exec(&exec.container, id, height, width)
            .await
    }

    /// Waits for the end of an exec that was started and returns its status; 255 where nobody saw it end.
    pub(crate) async fn exec_exit(&self, id: &str) -> i64 {
        let Ok(exec) = self.exec(id) else {
            return UNKNOWN_EXIT;
        };
        let container = self.watch_container(&exec.container);
        let gone = async {
            if let Ok(mut container) = container {
                drop(container.wait_for(|r| !r.is_running()).await);
            }
        };
        let ended = async {
            loop {
                let news = self.inner.execs.ended.notified();
                if let Some(code) = self.exec(id).map_or(Some(UNKNOWN_EXIT), |e| e.exit_code) {
                    return code;
                }
                news.await;
            }
        };
        tokio::select! {
            biased;
            code = ended => code,
            // Its end dies with the container: the kernel killed it.
            () = gone => self.exec(id).ok().and_then(|e| e.exit_code).unwrap_or(KILLED_EXIT),
        }
    }

    pub(crate) fn handle_exec_exit(&self, container: &str, exec_id: &str, code: i64) {
        self.inner.execs.modify(exec_id, |e| {
            e.running = false;
            e.exit_code = Some(code);
        });
        self.inner.execs.ended.notify_waiters();
        if self.inner.execs.get(exec_id).is_some()
            && let Ok(record) = self.container(container)
        {
            let more = [("execID", exec_id.to_owned()), ("exitCode", code.to_string())];
            self.container_event(&record, "exec_die", &more);
        }
    }
}

fn runs(record: &crate::ContainerRecord) -> Result<()> {
    match record.state.status {
        ContainerStatus::Running => Ok(()),
        ContainerStatus::Paused => Err(Error::conflict(format_args!(
            "container {} is paused, unpause the container before exec",
            record.name
        ))),
        _ => Err(Error::conflict(format_args!(
            "container {} is not running",
            record.id
        ))),
    }
}
