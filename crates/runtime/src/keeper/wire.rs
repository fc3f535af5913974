//! The protocol between daemon and keeper: length-prefixed JSON over a unix stream socket, with file descriptors
//! alongside (`SCM_RIGHTS`). Output and standard input do not pass here: an attachment is a socket of its own.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON. A frame that carries descriptors says how
//! many in `fds`; they arrive no later than its last byte, in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

/// Version of the protocol; a keeper of another version is asked to hand over before it is used.
pub(crate) const VERSION: u32 = 2;
/// Longest frame that is accepted.
const MAX_FRAME: usize = 16 << 20;
/// Most descriptors in one message (the kernel's limit is 253).
pub(crate) const MAX_FDS: usize = 250;

/// What the daemon asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// First frame of every connection. Answered by [`Reply::Hello`].
    Hello { version: u32 },
    /// Creates and starts a container.
    Start(Box<StartOrder>),
    /// Runs a process in a container; answered with its number and a stream socket.
    Exec(Box<ExecOrder>),
    /// A stream socket for a container's streams; with `next`, those of its next run.
    Attach { id: String, next: bool },
    /// Size of a terminal.
    Resize {
        id: String,
        exec_id: Option<String>,
        height: u16,
        width: u16,
    },
    /// A signal to the first process of a container.
    Signal { id: String, signal: i32 },
    /// Ends an exec that took too long.
    KillExec { exec_id: String },
    /// All containers known.
    List,
    /// The exit of this run was stored by the daemon.
    Acknowledge { id: String, run: u64 },
    /// The container is gone: its record may go.
    Forget { id: String },
    /// Keeps descriptors (sent alongside) under a name.
    StoreFds { name: String },
    /// Copies of the descriptors kept under a name.
    FetchFds { name: String },
    /// Forgets the descriptors kept under a name.
    DropFds { name: String },
    /// The daemon ends in good order: the keeper ends too when it has no container.
    Bye,
}

/// Answers to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "re", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// Done.
    Ok,
    /// Version and process of the keeper.
    Hello { version: u32, pid: i32 },
    /// A process runs.
    Pid { pid: i32 },
    /// Containers.
    List { containers: Vec<Record> },
    /// It did not work. `invalid`: the user's fault (Docker's 400).
    Error { kind: ErrorCode, message: String },
}

/// Which kind of failure, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// The user's fault.
    Invalid,
    /// No such container or process.
    NotFound,
    /// Not in this state.
    Conflict,
    /// A fault of the machine or of Tripod.
    Internal,
}

/// What the keeper tells without being asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first process of a container ended.
    Exited { id: String, run: u64, exit: ExitRecord },
    /// A process was killed for lack of memory.
    Oom { id: String },
    /// An exec ended.
    ExecExited { id: String, exec_id: String, code: i64 },
}

/// A frame from the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Repeated in the answer.
    pub seq: u64,
    /// Descriptors that come with it.
    #[serde(default)]
    pub fds: usize,
    /// The request.
    pub body: Request,
}

/// A frame from the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// An answer.
    Reply {
        /// Of the call.
        seq: u64,
        /// Descriptors that come with it.
        fds: usize,
        /// The reply.
        body: Reply,
    },
    /// An event.
    Event {
        /// The event.
        event: Event,
    },
}

/// How a container is to be started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StartOrder {
    /// Container.
    pub id: String,
    /// Its run.
    pub run: u64,
    /// Directory with `config.json`; stream FIFOs are made here too.
    pub bundle: PathBuf,
    /// External OCI runtime; `None` is the built-in one.
    pub oci_runtime: Option<PathBuf>,
    /// Give it a terminal of this size.
    pub tty: bool,
    /// Height and width.
    pub console_size: Option<(u16, u16)>,
    /// Keep a pipe to its standard input.
    pub stdin: bool,
    /// Close it when the first client leaves.
    pub stdin_once: bool,
    /// Owner of the streams: user and group of the process.
    pub owner: (u32, u32),
    /// Run the small init as first process.
    pub init: bool,
    /// Where the log goes.
    pub log: LogTarget,
    /// `cgroup.procs` files that the first process is put into before it does anything.
    pub join: Vec<PathBuf>,
    /// File with the system call filter.
    pub filter: Option<PathBuf>,
    /// File that counts the processes killed for lack of memory (`oom_kill N`).
    pub oom_file: Option<PathBuf>,
    /// Watch for such kills while the container runs.
    pub oom_watch: bool,
}

/// How a process is to be run in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ExecOrder {
    /// Container.
    pub id: String,
    /// Exec.
    pub exec_id: String,
    /// The OCI process, as JSON.
    pub process: serde_json::Value,
    /// File with the system call filter.
    pub filter: Option<PathBuf>,
    /// External OCI runtime; `None` is the built-in one.
    pub oci_runtime: Option<PathBuf>,
    /// Give it a terminal.
    pub tty: bool,
    /// Height and width.
    pub console_size: Option<(u16, u16)>,
    /// Keep a pipe to its standard input.
    pub stdin: bool,
    /// `cgroup.procs` files to join.
    pub join: Vec<PathBuf>,
}

/// Where the log of a container goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogTarget {
    /// `json-file`, `local` or `none`.
    pub driver: String,
    /// The file.
    pub path: PathBuf,
    /// Bytes after which the file is rotated; 0 is never.
    pub max_size: u64,
    /// Files kept, this one included.
    pub max_files: u32,
    /// Rotated files are compressed.
    pub compress: bool,
    /// Attributes added to every line.
    #[serde(default)]
    pub attrs: std::collections::BTreeMap<String, String>,
}

/// What the keeper writes to disk about a container, so that the next keeper knows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// How it was started.
    pub order: StartOrder,
    /// Its first process.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot (tells it from a later one of that number).
    pub start_ticks: u64,
    /// Its end.
    pub exit: Option<ExitRecord>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// Exit status, 128 + signal; `None` when it cannot be known.
    pub code: Option<i64>,
    /// The kernel killed a process of it for lack of memory.
    pub oom_killed: bool,
    /// Nanoseconds since 1970.
    pub at_nanos: i64,
}

/// Serialises a frame.
pub(crate) fn encode<T: Serialize>(frame: &T) -> io::Result<Vec<u8>> {
    let mut out = vec![0; 4];
    serde_json::to_writer(&mut out, frame)?;
    let len = u32::try_from(out.len() - 4).map_err(io::Error::other)?;
    out[..4].copy_from_slice(&len.to_le_bytes());
    Ok(out)
}

/// Collects bytes and descriptors into frames.
#[derive(Default)]
pub(crate) struct Inbox {
    buf: Vec<u8>,
    start: usize,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Reads what is there, once. `Ok(0)` is the end.
    pub(crate) fn fill(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        let mut chunk = [0u8; 16 * 1024];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; MAX_FDS]);
        let mut iov = [io::IoSliceMut::new(&mut chunk)];
        let (n, fds) = {
            let msg = recvmsg::<()>(
                fd.as_raw_fd(),
                &mut iov,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            )?;
            let mut fds = Vec::new();
            for c in msg.cmsgs().map_err(io::Error::from)? {
                if let ControlMessageOwned::ScmRights(raw) = c {
                    fds.extend(raw.into_iter().map(super::own_fd));
                }
            }
            (msg.bytes, fds)
        };
        self.fds.extend(fds);
        self.buf.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// The bytes of the next whole frame.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &self.buf[self.start..];
        let Some(head) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*head) as usize;
        if len > MAX_FRAME {
            return Err(io::Error::other("frame too long"));
        }
        if rest.len() < 4 + len {
            return Ok(None);
        }
        let at = self.start + 4;
        self.start = at + len;
        Ok(Some(&self.buf[at..at + len]))
    }

    /// Takes descriptors that came with the last frame.
    pub(crate) fn take_fds(&mut self, n: usize) -> io::Result<Vec<OwnedFd>> {
        if self.fds.len() < n {
            return Err(io::Error::other("descriptors are missing"));
        }
        Ok(self.fds.drain(..n).collect())
    }
}

/// Bytes and descriptors on their way out.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
}

impl Outbox {
    /// Appends a frame.
    pub(crate) fn push(&mut self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.queue.push_back((bytes, 0, fds));
    }

    /// Writes as much as the socket takes. True when all is out.
    pub(crate) fn flush(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        while let Some((bytes, at, fds)) = self.queue.front_mut() {
            let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
            let iov = [io::IoSlice::new(&bytes[*at..])];
            match sendmsg::<()>(
                fd.as_raw_fd(),
                &iov,
                control,
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                None,
            ) {
                Ok(n) => {
                    fds.clear();
                    *at += n;
                    if *at == bytes.len() {
                        self.queue.pop_front();
                    }
                }
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// Streams in frames of an attachment: 1 standard output, 2 standard error.
pub(crate) fn stream_header(stream: u8, len: usize) -> [u8; 4] {
    let n = (len as u32).to_le_bytes();
    [stream, n[0], n[1], n[2]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut out = Outbox::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        out.push(
            encode(&Call {
                seq: 1,
                fds: 0,
                body: Request::List,
            })
            .unwrap(),
            vec![],
        );
        out.push(
            encode(&Call {
                seq: 2,
                fds: 1,
                body: Request::StoreFds { name: "x".into() },
            })
            .unwrap(),
            vec![file.into()],
        );
        assert!(out.flush(a.as_fd()).unwrap());
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            assert!(inbox.fill(b.as_fd()).unwrap() > 0);
            while let Some(frame) = inbox.next_frame().unwrap() {
                let call: Call = serde_json::from_slice(frame).unwrap();
                assert_eq!(inbox.take_fds(call.fds).unwrap().len(), call.fds);
                seen.push(call.seq);
            }
        }
        assert_eq!(seen, [1, 2]);
        assert!(inbox.take_fds(1).is_err());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        let mut inbox = Inbox {
            buf: vec![0xff; 8],
            ..Inbox::default()
        };
        assert!(inbox.next_frame().is_err());
    }

    #[test]
    fn answers_are_told_apart() {
        for (a, reply) in [
            (
                Answer::Reply {
                    seq: 3,
                    fds: 0,
                    body: Reply::Pid { pid: 7 },
                },
                true,
            ),
            (
                Answer::Event {
                    event: Event::Oom { id: "x".into() },
                },
                false,
            ),
        ] {
            let bytes = encode(&a).unwrap();
            let back: Answer = serde_json::from_slice(&bytes[4..]).unwrap();
            assert_eq!(matches!(back, Answer::Reply { .. }), reply);
        }
    }
}
