//! A node's side of its session: with the leader in this process, or over the network.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tripod_model::image::HeldImages;
use tripod_model::session::{Assignment, PodReport, Token, TokenRequest};
use tripod_model::{Error, Result};

use super::LeaderSession;
use crate::engine::Engine;
use crate::link::message::{FromNode, Hello, Purpose, Settings, ToNode, Welcome};
use crate::link::mux::{Mux, Stream};
use crate::link::{frame, pool};
use crate::session::{NodeSession, Reporter};

/// A leader of which nothing was heard for so long is lost. It is heard of each second; and a new leader counts those
/// nodes as lost that have not found it some seconds after it began (`FIND` of the controllers).
const SILENCE: Duration = Duration::from_secs(3);
/// How long a leader may take to answer a node that opens a session.
const WELCOME: Duration = Duration::from_secs(10);

/// A session with the manager of this process.
pub(crate) struct Local {
    assignments: tokio::sync::Mutex<NodeSession>,
    reporter: Reporter,
}

impl Local {
    pub(crate) fn new(session: NodeSession) -> Self {
        Self {
            reporter: session.reporter(),
            assignments: tokio::sync::Mutex::new(session),
        }
    }
}

fn over() -> Error {
    Error::unavailable("the session with the manager is over")
}

#[async_trait]
impl LeaderSession for Local {
    async fn next(&self) -> Result<Assignment> {
        self.assignments.lock().await.next().await.ok_or_else(over)
    }

    async fn report(&self, reports: Vec<PodReport>) -> Result<()> {
        self.reporter.report(reports)
    }

    async fn acknowledge(&self, revision: u64) -> Result<()> {
        self.reporter.acknowledge(revision);
        Ok(())
    }

    fn attach(&self, networks: BTreeSet<String>) {
        self.reporter.attach(networks);
    }

    async fn lease(&self, owner: &str, network: &str, wanted: Option<IpAddr>) -> Result<IpNet> {
        self.reporter.lease(owner, network, wanted).await
    }

    async fn token(&self, request: TokenRequest) -> Result<Token> {
        self.reporter.token(request).await
    }

    fn images(&self, change: HeldImages) -> Result<()> {
        self.reporter.images(change);
        Ok(())
    }

    fn release(&self, owner: &str) {
        self.reporter.release(owner);
    }
}

/// Who waits for an answer, by the number of the question.
struct Waiting<T>(Mutex<HashMap<u64, oneshot::Sender<Result<T>>>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Waiting<T> {
    fn expect(&self, id: u64) -> oneshot::Receiver<Result<T>> {
        let (reply, answer) = oneshot::channel();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, reply);
        answer
    }

    fn answer(&self, id: u64, result: Result<T>) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(waiting) = waiting {
            // Who asked gave up.
            let _ = waiting.send(result);
        }
    }

    /// Nobody answers any more.
    fn give_up(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Questions that are open.
#[derive(Default)]
struct Questions {
    next: AtomicU64,
    leases: Waiting<IpNet>,
    tokens: Waiting<Token>,
}

/// A session over the network.
pub(crate) struct Remote {
    mux: Mux,
    assignments: tokio::sync::Mutex<mpsc::Receiver<Assignment>>,
    out: mpsc::UnboundedSender<FromNode>,
    questions: Arc<Questions>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.mux.end();
    }
}

/// What came of an attempt to open a session.
pub(crate) enum Opened {
    Session(Arc<Remote>),
    /// Another manager leads, perhaps there.
    Elsewhere(Option<String>),
}

/// Opens a session with the manager at an address.
pub(crate) async fn open(engine: &Engine, address: &str, hello: Hello) -> Result<Opened> {
    let config = engine.link().client()?;
    let (streams, mut asked) = mpsc::unbounded_channel::<Stream>();
    let mux = pool::dial(address, config, move |stream| {
        // Nobody takes streams any more when the session is over.
        let _ = streams.send(stream);
    })
    .await?;
    let failed = |e: std::io::Error| Error::unavailable(format_args!("{address}: {e}"));
    let mut stream = mux.open().await.map_err(failed)?;
    frame::send(&mut stream, &Purpose::Session(Box::new(hello)))
        .await
        .map_err(failed)?;
    let welcome = tokio::time::timeout(WELCOME, frame::receive(&mut stream, frame::MAX)).await;
    let settings = match welcome.map_err(|_| over())?.map_err(failed)? {
        Welcome::Accepted(settings) => settings,
        Welcome::Elsewhere(leader) => return Ok(Opened::Elsewhere(leader)),
        Welcome::Refused(e) => return Err(e),
    };
    let (reading, writing) = tokio::io::split(stream);
    let (out, outgoing) = mpsc::unbounded_channel();
    let (assigned, assignments) = mpsc::channel(16);
    let questions = Arc::<Questions>::default();
    let heartbeat = Duration::from_millis(settings.heartbeat_ms.max(100));
    tokio::spawn(write(writing, outgoing, heartbeat, mux.clone()));
    let doors = engine.clone();
    tokio::spawn(async move {
        while let Some(stream) = asked.recv().await {
            tokio::spawn(doors.clone().serve_door(stream));
        }
    });
    let incoming = Incoming {
        engine: engine.clone(),
        assigned,
        questions: questions.clone(),
        mux: mux.clone(),
    };
    engine.set_leader(out.clone());
    engine.settle(settings);
    tokio::spawn(end_with_leader(engine.clone(), address.to_owned(), mux.clone()));
    tokio::spawn(incoming.read(reading));
    Ok(Opened::Session(Arc::new(Remote {
        mux,
        assignments: tokio::sync::Mutex::new(assignments),
        out,
        questions,
    })))
}

/// On a manager: ends a session when another than the manager at its address leads, which may never tell.
async fn end_with_leader(engine: Engine, address: String, mux: Mux) {
    let Ok(manager) = engine.manager() else { return };
    let mut leadership = manager.db().cluster().leadership();
    loop {
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = mux.closed() => return,
        }
        leadership.borrow_and_update();
        if manager.db().cluster().is_leader() || manager.leader_address().is_some_and(|l| l != address) {
            tracing::info!("another manager leads; the session with {address} ends");
            return mux.end();
        }
    }
}

/// Sends what there is to send, and signs of life, until the connection or the session ends.
async fn write(
    mut writing: WriteHalf<Stream>,
    mut outgoing: mpsc::UnboundedReceiver<FromNode>,
    heartbeat: Duration,
    mux: Mux,
) {
    let mut alive = tokio::time::interval(heartbeat);
    loop {
        let message = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => message,
                None => return,
            },
            _ = alive.tick() => FromNode::Alive,
            () = mux.closed() => return,
        };
        if frame::send(&mut writing, &message).await.is_err() {
            return;
        }
    }
}

/// What arrives from the leader.
struct Incoming {
    engine: Engine,
    assigned: mpsc::Sender<Assignment>,
    questions: Arc<Questions>,
    mux: Mux,
}

impl Incoming {
    async fn read(self, mut reading: ReadHalf<Stream>) {
        while let Ok(Ok(message)) =
            tokio::time::timeout(SILENCE, frame::receive::<ToNode>(&mut reading, frame::MAX)).await
        {
            match message {
                ToNode::Alive => {}
                ToNode::Settings(settings) => self.settle(settings),
                ToNode::Assignment(assignment) => {
                    if self.assigned.send(*assignment).await.is_err() {
                        break;
                    }
                }
                ToNode::Leased { id, result } => self.questions.leases.answer(id, result),
                ToNode::Token { id, result } => self.questions.tokens.answer(id, result),
            }
        }
        self.questions.leases.give_up();
        self.questions.tokens.give_up();
        self.mux.end();
    }

    fn settle(&self, settings: Settings) {
        self.engine.settle(settings);
    }
}

#[async_trait]
impl LeaderSession for Remote {
    async fn next(&self) -> Result<Assignment> {
        self.assignments.lock().await.recv().await.ok_or_else(over)
    }

    async fn report(&self, reports: Vec<PodReport>) -> Result<()> {
        self.out.send(FromNode::Reports(reports)).map_err(|_| over())
    }

    async fn acknowledge(&self, revision: u64) -> Result<()> {
        self.out.send(FromNode::Acknowledge(revision)).map_err(|_| over())
    }

    fn attach(&self, networks: BTreeSet<String>) {
        // A session that is over is followed by another, to which this is told anew.
        let _ = self.out.send(FromNode::Attach(networks));
    }

    async fn lease(&self, owner: &str, network: &str, wanted: Option<IpAddr>) -> Result<IpNet> {
        let id = self.questions.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.questions.leases.expect(id);
        let (owner, network) = (owner.to_owned(), network.to_owned());
        self.out
            .send(FromNode::Lease {
                id,
                owner,
                network,
                wanted,
            })
            .map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }

    async fn token(&self, request: TokenRequest) -> Result<Token> {
        let id = self.questions.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.questions.tokens.expect(id);
        self.out
            .send(FromNode::Token { id, request })
            .map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }

    fn images(&self, change: HeldImages) -> Result<()> {
        self.out
            .send(FromNode::Images(Box::new(change)))
            .map_err(|_| over())
    }

    fn release(&self, owner: &str) {
        let _ = self.out.send(FromNode::Release {
            owner: owner.to_owned(),
        });
    }
}
