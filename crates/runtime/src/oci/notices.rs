//! What the keeper tells: ends of containers and execs, kills for lack of memory.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tripod_agent::ports::{Exit, RuntimeEvent};
use tripod_model::Time;

use super::{Shared, files};
use crate::client::Notice;
use crate::keeper::wire::{Event, ExitRecord};

/// Handles notices until the runtime is dropped.
pub(super) async fn run(shared: Weak<Shared>, mut notices: mpsc::UnboundedReceiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        match notice {
            Notice::Event(Event::Exited { id, run, exit }) => ended(&shared, id, run, exit),
            Notice::Event(Event::Oom { id }) => {
                let _ = shared.events.send(RuntimeEvent::Oom { id });
            }
            Notice::Event(Event::ExecExited { id, exec_id, code }) => exec_ended(&shared, id, exec_id, code),
            Notice::Reconnected(records) => {
                // Execs ended with the keeper that was lost, or their ends were missed.
                shared.waits().clear();
                for r in records {
                    if let Some(exit) = r.exit {
                        ended(&shared, r.order.id, r.order.run, exit);
                    }
                }
            }
        }
    }
}

fn exec_ended(shared: &Shared, id: String, exec_id: String, code: i64) {
    match shared.waits().remove(&exec_id) {
        Some(tx) => {
            let _ = tx.send(code);
        }
        None => {
            let _ = shared.events.send(RuntimeEvent::ExecExited { id, exec_id, code });
        }
    }
}

/// Cleans up after a run, then tells the agent, which may start the next one at once.
fn ended(shared: &Arc<Shared>, id: String, run: u64, exit: ExitRecord) {
    let entry = shared.entries().get(&id).filter(|e| e.run == run).cloned();
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || {
        if let Some(e) = &entry {
            if let Some(runtime) = &e.kept.oci_runtime {
                crate::helper::external::delete(runtime, &shared.dir(&id), &id);
            }
            if let Err(error) = e.cgroup.remove() {
                tracing::warn!(%id, "cgroup not removed: {error}");
            }
            files::release(&shared.dir(&id));
            e.running.send_replace(false);
        }
        let _ = shared.events.send(RuntimeEvent::Exited(exit_of(id, run, &exit)));
    });
}

/// The port's form of an exit record.
pub(super) fn exit_of(id: String, run: u64, exit: &ExitRecord) -> Exit {
    Exit {
        id,
        run,
        code: exit.code,
        oom_killed: exit.oom_killed,
        at: Time::from_nanosecond(exit.at_nanos.into()).unwrap_or(Time::UNIX_EPOCH),
    }
}
