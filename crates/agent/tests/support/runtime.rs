//! Processes in memory, kept by a keeper that outlives the agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tripod_agent::ports::*;
use tripod_model::container::Resources;
use tripod_model::{Error, Result};

use super::Script;

/// A process that runs.
#[derive(Debug, Clone)]
pub struct Process {
    pub run: u64,
    pub pid: i32,
    pub paused: bool,
}

#[derive(Default)]
struct State {
    processes: BTreeMap<String, Process>,
    exits: BTreeMap<(String, u64), Exit>,
    events: Option<mpsc::UnboundedSender<RuntimeEvent>>,
    requests: Vec<StartRequest>,
    /// Containers that take no notice of the stop signal.
    deaf: BTreeSet<String>,
    /// Answers to the next health checks; 0 when there is none.
    checks: VecDeque<Option<i64>>,
    removed: Vec<String>,
    last_pid: i32,
}

/// The double of the runtime.
pub struct FakeRuntime {
    script: Arc<Script>,
    state: Mutex<State>,
}

impl FakeRuntime {
    pub fn new(script: Arc<Script>) -> Self {
        Self {
            script,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The process of a container.
    pub fn process(&self, id: &str) -> Option<Process> {
        self.lock().processes.get(id).cloned()
    }

    /// Containers whose process runs.
    pub fn running(&self) -> Vec<String> {
        self.lock().processes.keys().cloned().collect()
    }

    /// The start requests of a container, in order.
    pub fn requests(&self, id: &str) -> Vec<StartRequest> {
        let state = self.lock();
        state.requests.iter().filter(|r| r.id == id).cloned().collect()
    }

    /// Exits that nobody has acknowledged.
    pub fn unacknowledged(&self) -> Vec<(String, u64)> {
        self.lock().exits.keys().cloned().collect()
    }

    /// A process that no record of the agent's knows, as after a lost write.
    pub fn plant(&self, id: &str, run: u64) {
        let mut state = self.lock();
        state.last_pid += 1;
        let process = Process {
            run,
            pid: state.last_pid,
            paused: false,
        };
        state.processes.insert(id.to_owned(), process);
    }

    /// The machine was rebooted: nothing runs, nothing is known.
    pub fn reboot(&self) {
        let mut state = self.lock();
        state.processes.clear();
        state.exits.clear();
    }

    /// The container takes no notice of its stop signal.
    pub fn ignore_stop(&self, id: &str) {
        self.lock().deaf.insert(id.to_owned());
    }

    /// Exit codes of the next health checks; `None` is a time-out.
    pub fn answer_checks(&self, codes: &[Option<i64>]) {
        self.lock().checks.extend(codes);
    }

    /// The container's process ends by itself.
    pub fn exit(&self, id: &str, code: i64) {
        self.end(id, Some(code), false);
    }

    /// The container's process ends in some way.
    pub fn end(&self, id: &str, code: Option<i64>, oom_killed: bool) {
        let process = self.lock().processes.remove(id).expect("it runs");
        self.report(Exit {
            id: id.to_owned(),
            run: process.run,
            code,
            oom_killed,
            at: self.script.now(),
        });
    }

    /// Tells the agent of an exit, whether or not it is true.
    pub fn report(&self, exit: Exit) {
        let mut state = self.lock();
        state.exits.insert((exit.id.clone(), exit.run), exit.clone());
        self.send(&state, RuntimeEvent::Exited(exit));
    }

    /// Tells the agent of something else.
    pub fn tell(&self, event: RuntimeEvent) {
        self.send(&self.lock(), event);
    }

    fn send(&self, state: &State, event: RuntimeEvent) {
        if let Some(events) = &state.events {
            // The agent may be gone: then the next one asks for what it missed.
            let _ = events.send(event);
        }
    }

    fn streams() -> Streams {
        Streams {
            stdin: None,
            output: futures::stream::empty().boxed(),
        }
    }

    fn known(&self, id: &str) -> Result<()> {
        match self.lock().processes.contains_key(id) {
            true => Ok(()),
            false => Err(Error::not_found("no such process")),
        }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn adopt(&self) -> Result<Vec<Adopted>> {
        self.script.step("runtime.adopt", "").await?;
        let state = self.lock();
        let running = state.processes.iter().map(|(id, p)| Adopted {
            id: id.clone(),
            run: p.run,
            pid: p.pid,
            paused: p.paused,
            exit: None,
        });
        let ended = state
            .exits
            .values()
            .filter(|e| !state.processes.contains_key(&e.id));
        let ended = ended.map(|e| Adopted {
            id: e.id.clone(),
            run: e.run,
            pid: 0,
            paused: false,
            exit: Some(e.clone()),
        });
        Ok(running.chain(ended).collect())
    }

    fn events(&self) -> BoxStream<RuntimeEvent> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.lock().events = Some(sender);
        futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed()
    }

    async fn start(&self, request: StartRequest) -> Result<Started> {
        self.script.step("runtime.start", &request.id).await?;
        let mut state = self.lock();
        if state.processes.contains_key(&request.id) {
            self.script.fault(format!("{} started twice", request.id));
        }
        state.last_pid += 1;
        let pid = state.last_pid;
        let process = Process {
            run: request.run,
            pid,
            paused: false,
        };
        state.processes.insert(request.id.clone(), process);
        state.requests.push(request);
        Ok(Started {
            pid,
            at: self.script.now(),
            warnings: Vec::new(),
        })
    }

    async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        self.script.step(&format!("runtime.signal {signal}"), id).await?;
        self.known(id)?;
        let deaf = self.lock().deaf.contains(id);
        if signal == 9 || (matches!(signal, 2 | 3 | 15) && !deaf) {
            self.end(id, Some(128 + i64::from(signal)), false);
        }
        Ok(())
    }

    async fn pause(&self, id: &str) -> Result<()> {
        self.script.step("runtime.pause", id).await?;
        self.known(id)?;
        self.lock().processes.get_mut(id).expect("known").paused = true;
        Ok(())
    }

    async fn unpause(&self, id: &str) -> Result<()> {
        self.script.step("runtime.unpause", id).await?;
        self.known(id)?;
        self.lock().processes.get_mut(id).expect("known").paused = false;
        Ok(())
    }

    async fn update(&self, id: &str, _: &Resources) -> Result<()> {
        self.script.step("runtime.update", id).await
    }

    async fn keep_namespaces(&self, _: &std::path::Path, hostname: &str, _: bool) -> Result<()> {
        self.script.step("runtime.keep_namespaces", hostname).await
    }

    async fn drop_namespaces(&self, _: &std::path::Path) -> Result<()> {
        Ok(())
    }

    async fn group(&self, path: &str, _: &Resources) -> Result<()> {
        self.script.step("runtime.group", path).await
    }

    async fn remove_group(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn acknowledge_exit(&self, id: &str, run: u64) -> Result<()> {
        self.script.step("runtime.acknowledge_exit", id).await?;
        self.lock().exits.remove(&(id.to_owned(), run));
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.script.step("runtime.remove", id).await?;
        let mut state = self.lock();
        if state.processes.contains_key(id) {
            self.script.fault(format!("{id} removed while it runs"));
        }
        state.exits.retain(|(of, _), _| of != id);
        state.removed.push(id.to_owned());
        Ok(())
    }

    async fn attach(&self, id: &str) -> Result<Streams> {
        self.script.step("runtime.attach", id).await?;
        Ok(Self::streams())
    }

    async fn attach_next(&self, id: &str) -> Result<Streams> {
        self.script.step("runtime.attach_next", id).await?;
        Ok(Self::streams())
    }

    async fn resize(&self, id: &str, _: u16, _: u16) -> Result<()> {
        self.script.step("runtime.resize", id).await
    }

    async fn exec(&self, id: &str, _: ExecRequest) -> Result<(Streams, i32)> {
        self.script.step("runtime.exec", id).await?;
        self.known(id)?;
        Ok((Self::streams(), 4711))
    }

    async fn resize_exec(&self, id: &str, _: &str, _: u16, _: u16) -> Result<()> {
        self.script.step("runtime.resize_exec", id).await
    }

    async fn exec_sync(
        &self,
        id: &str,
        _: ExecRequest,
        _: Duration,
        _: usize,
    ) -> Result<(Option<i64>, Bytes)> {
        self.script.step("runtime.exec_sync", id).await?;
        let answer = self.lock().checks.pop_front().unwrap_or(Some(0));
        Ok((answer, Bytes::from_static(b"checked")))
    }

    async fn logs(&self, id: &str, _: LogQuery) -> Result<BoxStream<Result<LogLine>>> {
        self.script.step("runtime.logs", id).await?;
        Ok(futures::stream::empty().boxed())
    }

    fn log_path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    async fn stats(&self, id: &str) -> Result<Stats> {
        self.script.step("runtime.stats", id).await?;
        Ok(Stats::default())
    }

    async fn pids(&self, id: &str) -> Result<Vec<i32>> {
        Ok(self.process(id).map(|p| p.pid).into_iter().collect())
    }

    fn info(&self) -> RuntimeInfo {
        RuntimeInfo::default()
    }
}
