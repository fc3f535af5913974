//! The daemon's side of the keeper: starts it when there is none, calls it, and finds or starts it again when the
//! connection is lost.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tripod_model::{Error, ErrorKind, Result};

use crate::keeper::wire::{self, Answer, Call, ErrorCode, Event, Inbox, Outbox, Record, Reply, Request};

type Outcome = Result<(Reply, Vec<OwnedFd>)>;
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>;
type Frame = (Vec<u8>, Vec<OwnedFd>);

/// What comes from the keeper unasked.
#[derive(Debug)]
pub(crate) enum Notice {
    /// An event.
    Event(Event),
    /// The connection was made anew (perhaps to another keeper); these containers are known there.
    Reconnected(Vec<Record>),
}

/// A connection to the keeper that mends itself.
pub(crate) struct Client {
    sender: Arc<Mutex<mpsc::UnboundedSender<Frame>>>,
    pending: Pending,
    next: AtomicU64,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lost() -> Error {
    Error::unavailable("the connection to the keeper was lost")
}

impl Client {
    /// Connects to the keeper of a directory, which is started when there is none.
    pub(crate) async fn connect(
        dir: &Path,
        exe: &Path,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Notice>)> {
        let (notices, receiver) = mpsc::unbounded_channel();
        let stream = open(dir, exe).await?;
        let (sender, outgoing) = mpsc::unbounded_channel();
        let client = Arc::new(Self {
            sender: Arc::new(Mutex::new(sender)),
            pending: Pending::default(),
            next: AtomicU64::new(1),
        });
        let mend = Mend {
            dir: dir.to_owned(),
            exe: exe.to_owned(),
            sender: Arc::downgrade(&client.sender),
            pending: client.pending.clone(),
            notices,
        };
        tokio::spawn(mend.run(stream, outgoing));
        match client
            .call(
                Request::Hello {
                    version: wire::VERSION,
                },
                Vec::new(),
            )
            .await?
        {
            (Reply::Hello { version, .. }, _) if version == wire::VERSION => {}
            (Reply::Hello { version, .. }, _) => {
                return Err(Error::internal(format!(
                    "the running keeper speaks version {version}, this daemon {}",
                    wire::VERSION
                )));
            }
            _ => return Err(Error::internal("the keeper gave a wrong answer")),
        }
        Ok((client, receiver))
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&self, body: Request, fds: Vec<OwnedFd>) -> Outcome {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = wire::encode(&Call {
            seq,
            fds: fds.len(),
            body,
        })?;
        let (tx, rx) = oneshot::channel();
        lock(&self.pending).insert(seq, tx);
        if lock(&self.sender).send((bytes, fds)).is_err() {
            lock(&self.pending).remove(&seq);
            return Err(lost());
        }
        match rx.await.map_err(|_| lost())?? {
            (Reply::Error { kind, message }, _) => Err(error(kind, message)),
            ok => Ok(ok),
        }
    }
}

fn error(kind: ErrorCode, message: String) -> Error {
    let kind = match kind {
        ErrorCode::Invalid => ErrorKind::Invalid,
        ErrorCode::NotFound => ErrorKind::NotFound,
        ErrorCode::Conflict => ErrorKind::Conflict,
        ErrorCode::Internal => ErrorKind::Internal,
    };
    Error::new(kind, message)
}

/// The task that owns the connection.
struct Mend {
    dir: PathBuf,
    exe: PathBuf,
    /// The client's; its end ends the connection.
    sender: Weak<Mutex<mpsc::UnboundedSender<Frame>>>,
    pending: Pending,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Mend {
    async fn run(self, mut stream: UnixStream, mut outgoing: mpsc::UnboundedReceiver<Frame>) {
        loop {
            if serve(&stream, &mut outgoing, &self.pending, &self.notices)
                .await
                .is_ok()
            {
                // The client is gone.
                return;
            }
            // First the channel, then those who wait: a call made meanwhile fails on one or the other.
            drop(outgoing);
            for (_, tx) in lock(&self.pending).drain() {
                let _ = tx.send(Err(lost()));
            }
            tracing::warn!("the connection to the keeper was lost; connecting again");
            (stream, outgoing) = match self.again().await {
                Some(both) => both,
                None => return,
            };
        }
    }

    /// A new connection, greeted, with the list of containers already asked for.
    async fn again(&self) -> Option<(UnixStream, mpsc::UnboundedReceiver<Frame>)> {
        let mut wait = std::time::Duration::from_millis(10);
        let stream = loop {
            if self.notices.is_closed() {
                return None;
            }
            match open(&self.dir, &self.exe).await {
                Ok(s) => break s,
                Err(e) => tracing::error!("no keeper: {e}"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(std::time::Duration::from_secs(5));
        };
        let (tx, rx) = mpsc::unbounded_channel();
        // Numbers from the upper end, which the client's own never reach.
        for (seq, body) in [
            (
                u64::MAX - 1,
                Request::Hello {
                    version: wire::VERSION,
                },
            ),
            (u64::MAX, Request::List),
        ] {
            let bytes = wire::encode(&Call { seq, fds: 0, body }).ok()?;
            let _ = tx.send((bytes, Vec::new()));
        }
        *lock(&*self.sender.upgrade()?) = tx;
        Some((stream, rx))
    }
}

/// Moves frames until the connection ends (an error) or the client does.
async fn serve(
    stream: &UnixStream,
    outgoing: &mut mpsc::UnboundedReceiver<Frame>,
    pending: &Pending,
    notices: &mpsc::UnboundedSender<Notice>,
) -> io::Result<()> {
    let (mut inbox, mut outbox, mut clear) = (Inbox::default(), Outbox::default(), true);
    loop {
        let interest = if clear {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        tokio::select! {
            frame = outgoing.recv() => {
                let Some((bytes, fds)) = frame else { return Ok(()) };
                outbox.push(bytes, fds);
                clear = false;
            }
            ready = stream.ready(interest) => {
                if ready?.is_readable() {
                    receive(stream, &mut inbox, pending, notices)?;
                }
            }
        }
        if !clear {
            match stream.try_io(Interest::WRITABLE, || {
                if outbox.flush(stream.as_fd())? {
                    Ok(())
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            }) {
                Ok(()) => clear = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

fn receive(
    stream: &UnixStream,
    inbox: &mut Inbox,
    pending: &Pending,
    notices: &mpsc::UnboundedSender<Notice>,
) -> io::Result<()> {
    match stream.try_io(Interest::READABLE, || inbox.fill(stream.as_fd())) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(e) => return Err(e),
    }
    loop {
        let answer: Answer = match inbox.next_frame()? {
            Some(frame) => serde_json::from_slice(frame)?,
            None => return Ok(()),
        };
        match answer {
            Answer::Event { event } => {
                let _ = notices.send(Notice::Event(event));
            }
            Answer::Reply {
                seq: u64::MAX,
                body: Reply::List { containers },
                ..
            } => {
                let _ = notices.send(Notice::Reconnected(containers));
            }
            Answer::Reply { seq, fds, body } => {
                let fds = inbox.take_fds(fds)?;
                if let Some(tx) = lock(pending).remove(&seq) {
                    let _ = tx.send(Ok((body, fds)));
                }
            }
        }
    }
}

/// Connects to the keeper; starts one when nobody listens.
async fn open(dir: &Path, exe: &Path) -> Result<UnixStream> {
    let (dir, exe) = (dir.to_owned(), exe.to_owned());
    let std = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&dir)?;
        connect(&dir).or_else(|_| {
            start(&dir, &exe)?;
            connect(&dir)
        })
    })
    .await
    .map_err(Error::internal)?
    .map_err(|e: io::Error| Error::internal(format!("cannot reach the keeper: {e}")))?;
    std.set_nonblocking(true)?;
    Ok(UnixStream::from_std(std)?)
}

/// By way of an open directory, since the path of a socket may not be long.
fn connect(dir: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let handle = std::fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), crate::keeper::SOCKET);
    std::os::unix::net::UnixStream::connect(path)
}

fn start(dir: &Path, exe: &Path) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let mut child = Command::new(exe)
        .arg("keeper")
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        io::BufRead::read_line(&mut io::BufReader::new(out), &mut line)?;
    }
    let status = child.wait()?;
    if line.trim() == "ready" {
        Ok(())
    } else {
        Err(io::Error::other(format!("the keeper did not start ({status})")))
    }
}
