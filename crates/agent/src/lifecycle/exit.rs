//! What happens when a container's process has ended.

use std::sync::Arc;

use futures::StreamExt;
use tripod_model::container::ContainerStatus;
use tripod_model::{ErrorKind, Result, Time};

use crate::networks::mac_of;
use crate::ports::{Exit, RuntimeEvent};
use crate::record::{ContainerRecord, Owner};
use crate::restart::{self, Decision};
use crate::store::Table;
use crate::table::Container;
use crate::{Agent, RemoveOptions};

/// The status of a run whose end nobody saw.
const UNKNOWN_EXIT: i64 = 255;

impl Agent {
    /// Handles the runtime's events for as long as the daemon runs.
    pub(crate) fn follow_runtime(&self) {
        let agent = self.clone();
        let mut events = self.runtime().events();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    RuntimeEvent::Exited(exit) => {
                        let agent = agent.clone();
                        tokio::spawn(async move { agent.handle_exit(exit).await });
                    }
                    RuntimeEvent::Oom { id } => {
                        if let Some(c) = agent.inner.table.by_id(&id) {
                            agent.container_event(&c.get(), "oom", &[]);
                        }
                    }
                    RuntimeEvent::ExecExited { id, exec_id, code } => {
                        agent.handle_exec_exit(&id, &exec_id, code);
                    }
                }
            }
        });
    }

    pub(crate) async fn handle_exit(&self, exit: Exit) {
        let Some(container) = self.inner.table.by_id(&exit.id) else {
            let _ = self.runtime().acknowledge_exit(&exit.id, exit.run).await;
            return;
        };
        let busy = container.busy.lock().await;
        let record = container.get();
        if record.run != exit.run || !record.is_running() {
            let _ = self.runtime().acknowledge_exit(&exit.id, exit.run).await;
            return;
        }
        container.cancel_run();
        // Who waits for the end finds ports, addresses and volumes free.
        self.tear_down(&record).await;
        let decision = restart::decide(&container.get(), exit.code.unwrap_or(UNKNOWN_EXIT), exit.at);
        let kept = container.kept.load(std::sync::atomic::Ordering::Relaxed);
        let ended = self.record_exit(&container, &exit, decision);
        if let Err(e) = self.finish_exit(&ended, &exit).await {
            tracing::error!("the end of {} cannot be stored: {e}", ended.name);
        }
        if let Err(e) = self.refresh_names(&record).await {
            tracing::warn!("names of {} are still served: {e}", record.name);
        }
        drop(busy);
        match decision {
            Decision::After(delay) => self.restart_after(&container, delay),
            Decision::Stay if ended.spec.auto_remove && ended.owner == Owner::Local && !kept => {
                self.remove_ended(&ended).await;
            }
            Decision::Stay => {}
        }
    }

    /// Removes a container whose life is over (`--rm`).
    pub(crate) async fn remove_ended(&self, record: &ContainerRecord) {
        let options = RemoveOptions {
            volumes: true,
            ..RemoveOptions::default()
        };
        match self.remove_container(&record.id, options).await {
            // A client was faster.
            Err(e) if e.kind == ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("{} is not removed: {e}", record.name),
            Ok(()) => {}
        }
    }

    fn record_exit(
        &self,
        container: &Arc<Container>,
        exit: &Exit,
        decision: Decision,
    ) -> Arc<ContainerRecord> {
        let code = exit.code.unwrap_or(UNKNOWN_EXIT);
        let ended = container.modify(|r| {
            let state = &mut r.state;
            state.status = match decision {
                Decision::After(_) => ContainerStatus::Restarting,
                Decision::Stay => ContainerStatus::Exited,
            };
            state.pid = 0;
            state.exit_code = code;
            state.oom_killed = exit.oom_killed;
            state.finished_at = Some(exit.at);
            if exit.code.is_none() {
                state.error = "the exit status is not known: the process that kept it was lost".into();
            }
            for e in &mut r.endpoints {
                clear_endpoint(e);
            }
            r.ports.clear();
        });
        if exit.oom_killed {
            self.container_event(&ended, "oom", &[]);
        }
        let seconds = ended
            .state
            .started_at
            .map_or(0, |t| exit.at.as_second().saturating_sub(t.as_second()));
        self.container_event(
            &ended,
            "die",
            &[
                ("exitCode", code.to_string()),
                ("execDuration", seconds.to_string()),
            ],
        );
        ended
    }

    async fn finish_exit(&self, ended: &ContainerRecord, exit: &Exit) -> Result<()> {
        if ended.spec.auto_remove {
            // Nobody will ask for it again: the record goes in a moment.
            self.save_soon(ended);
        } else {
            self.inner.store.put(Table::Containers, &ended.id, ended).await?;
        }
        self.runtime().acknowledge_exit(&exit.id, exit.run).await
    }

    /// Takes away what a run had: network, mounts, root filesystem. `record` is that of the run.
    pub(crate) async fn tear_down(&self, record: &ContainerRecord) {
        tokio::join!(self.network_down(record, &record.endpoints), async {
            self.release_mounts(record).await;
            if let Err(e) = self.images().unmount(&record.id).await {
                tracing::warn!("the root filesystem of {} stays mounted: {e}", record.name);
            }
        });
        self.withdraw_files(record);
    }

    pub(super) fn restart_after(&self, container: &Arc<Container>, delay: std::time::Duration) {
        let agent = self.clone();
        let id = container.get().id.clone();
        let token = container.new_run_token();
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => return,
                // The back-off is a time to wait for, not an event.
                () = tokio::time::sleep(delay) => {}
            }
            agent.restart_by_policy(&id, &token).await;
        });
    }

    async fn restart_by_policy(&self, id: &str, token: &tokio_util::sync::CancellationToken) {
        let Some(container) = self.inner.table.by_id(id) else {
            return;
        };
        let _busy = container.busy.lock().await;
        if token.is_cancelled() || container.get().state.status != ContainerStatus::Restarting {
            return;
        }
        container.modify(|r| r.state.restart_count += 1);
        if let Err(e) = self.start_locked(&container, Vec::new()).await {
            tracing::warn!("{} does not start again: {e}", container.get().name);
        }
    }

    /// Ends, in the record, a run that nothing is left of (the machine was rebooted).
    pub(crate) fn record_lost_run(&self, container: &Arc<Container>) -> Arc<ContainerRecord> {
        container.modify(|r| {
            r.state.status = ContainerStatus::Exited;
            r.state.pid = 0;
            r.state.exit_code = UNKNOWN_EXIT;
            r.state.finished_at = Some(Time::now());
            for e in &mut r.endpoints {
                clear_endpoint(e);
            }
            r.ports.clear();
        })
    }
}

/// What an endpoint has only while its container runs.
fn clear_endpoint(e: &mut tripod_model::network::Endpoint) {
    // A hardware address that does not come of the address was asked for.
    if e.ipv4.is_some_and(|a| mac_of(a.addr()) == e.mac) {
        e.mac.clear();
    }
    if !e.fixed_ipv4 {
        e.ipv4 = None;
    }
    if !e.fixed_ipv6 {
        e.ipv6 = None;
    }
    e.gateway = None;
    e.gateway6 = None;
    e.interface.clear();
    e.default_route = false;
}
