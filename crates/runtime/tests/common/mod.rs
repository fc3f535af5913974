//! A runtime with a keeper of its own in a temporary directory, and a root filesystem made of busybox.
#![allow(dead_code, unreachable_pub)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use tripod_agent::ports::{BoxStream, Exit, OutputStream, Runtime, RuntimeEvent, StartRequest, Streams};
use tripod_model::container::ContainerSpec;
use tripod_runtime::{OciRuntime, Options};

/// Whether this machine can run containers; says why not.
pub fn can_run() -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if !Path::new("/bin/busybox").exists() {
        "/bin/busybox is missing (package busybox-static)"
    } else {
        return true;
    };
    eprintln!("skipped: {why}");
    false
}

/// A node with nothing but the runtime.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub runtime: Arc<OciRuntime>,
    pub events: BoxStream<RuntimeEvent>,
    pub options: Options,
    guard: Guard,
}

/// Takes away what a failed test leaves: processes, the keeper, cgroups, mounts.
struct Guard {
    root: PathBuf,
    parent: String,
    keeper: i32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let kill =
            |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        let _ = kill(self.keeper);
        for mount in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let parent = mount.path().join(&self.parent);
            for group in entries(&parent) {
                let _ = std::fs::write(group.path().join("freezer.state"), "THAWED");
                for _ in 0..200 {
                    let procs =
                        std::fs::read_to_string(group.path().join("cgroup.procs")).unwrap_or_default();
                    procs.lines().filter_map(|l| l.parse().ok()).for_each(|pid| {
                        let _ = kill(pid);
                    });
                    match std::fs::remove_dir(group.path()) {
                        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        _ => break,
                    }
                }
            }
            let _ = std::fs::remove_dir(parent);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|p| Path::new(p).starts_with(&self.root))
        {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Node {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_root(&dir.path().join("rootfs"));
        let mut options = Options::below(dir.path());
        options.program = env!("CARGO_BIN_EXE_tripod-keeper-test").into();
        options.cgroup_parent = format!(
            "/tripod-test-{}",
            dir.path().file_name().unwrap().to_string_lossy().replace('.', "")
        );
        let runtime = Arc::new(OciRuntime::open(options.clone()).await.unwrap());
        let events = runtime.events();
        let parent = options.cgroup_parent.trim_start_matches('/').to_owned();
        let guard = Guard {
            root: dir.path().into(),
            parent,
            keeper: keeper_of(&options.keeper),
        };
        Self {
            dir,
            runtime,
            events,
            options,
            guard,
        }
    }

    /// A further daemon after the first was lost.
    pub async fn reopen(&mut self) {
        self.events = futures::stream::empty().boxed();
        self.runtime = Arc::new(OciRuntime::open(self.options.clone()).await.unwrap());
        self.events = self.runtime.events();
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn id(n: u8) -> String {
        format!("{n:02x}").repeat(32)
    }

    pub fn request(&self, n: u8, spec: ContainerSpec) -> StartRequest {
        let id = Self::id(n);
        StartRequest {
            run: 1,
            spec: Arc::new(spec),
            rootfs: self.rootfs(),
            netns: None,
            mounts: vec![],
            dir: self.options.containers.join(&id),
            id,
        }
    }

    /// Process of the keeper.
    pub fn keeper_pid(&self) -> i32 {
        keeper_of(&self.options.keeper)
    }

    /// Starts a container and returns what it printed and how it ended.
    pub async fn run(&mut self, n: u8, spec: ContainerSpec) -> (String, String, Exit) {
        let request = self.request(n, spec);
        let streams = self.runtime.attach_next(&request.id).await.unwrap();
        self.runtime.start(request).await.unwrap();
        let (out, err) = collect(streams).await;
        (out, err, self.exit().await)
    }

    /// The next end of a container.
    pub async fn exit(&mut self) -> Exit {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), self.events.next()).await;
            if let RuntimeEvent::Exited(e) = event.expect("no exit in time").expect("events ended") {
                return e;
            }
        }
    }

    /// Removes everything; nothing may be left.
    pub async fn finish(self) {
        for a in self.runtime.adopt().await.unwrap() {
            if a.exit.is_none() {
                let _ = self.runtime.signal(&a.id, 9).await;
            }
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let all = self.runtime.adopt().await.unwrap();
            for a in all.iter().filter(|a| a.exit.is_some()) {
                self.runtime.remove(&a.id).await.unwrap();
            }
            if all.iter().all(|a| a.exit.is_some()) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "containers do not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let keeper = self.keeper_pid();
        self.runtime.close().await.unwrap();
        drop(self.runtime);
        while Path::new(&format!("/proc/{keeper}")).exists() {
            assert!(std::time::Instant::now() < deadline, "the keeper does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let parent = self.options.cgroup_parent.trim_start_matches('/').to_owned();
        for root in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let _ = std::fs::remove_dir(root.path().join(&parent));
            assert!(
                !root.path().join(&parent).exists(),
                "a cgroup is left in {}",
                root.path().display()
            );
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap().to_owned();
        assert!(!mounts.contains(&dir), "a mount is left");
    }
}

fn entries(dir: &Path) -> Vec<std::fs::DirEntry> {
    std::fs::read_dir(dir)
        .map(|d| d.filter_map(Result::ok).collect())
        .unwrap_or_default()
}

fn keeper_of(dir: &Path) -> i32 {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = cmdline.split(|b| *b == 0).collect();
        if words.get(1) == Some(&&b"keeper"[..]) && words.get(2) == Some(&dir.as_os_str().as_encoded_bytes())
        {
            return pid;
        }
    }
    panic!("no keeper")
}

/// A root filesystem with busybox under the usual names.
pub fn make_root(root: &Path) {
    for d in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        std::fs::create_dir_all(root.join(d)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "true", "echo", "cat", "sleep", "id", "env", "ls", "grep", "touch", "mkdir", "kill", "stty",
        "ps", "head", "tr", "dd", "hostname", "mount", "yes", "printf", "pwd", "seq", "tail", "chroot", "df",
        "wc", "readlink", "unshare", "test", "rm", "stat", "false",
    ] {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(name));
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\naudio:x:29:web\n").unwrap();
}

/// A container that runs a shell script.
pub fn sh(script: &str) -> ContainerSpec {
    cmd(&["/bin/sh", "-c", script])
}

pub fn cmd(words: &[&str]) -> ContainerSpec {
    ContainerSpec {
        command: words.iter().map(ToString::to_string).collect(),
        hostname: "box".into(),
        ..ContainerSpec::default()
    }
}

/// Reads streams to their end.
pub async fn collect(mut streams: Streams) -> (String, String) {
    let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
    while let Some(chunk) = streams.output.next().await {
        let chunk = chunk.unwrap();
        match chunk.stream {
            OutputStream::Stdout => out.extend_from_slice(&chunk.data),
            OutputStream::Stderr => err.extend_from_slice(&chunk.data),
        }
    }
    (
        String::from_utf8_lossy(&out).into_owned(),
        String::from_utf8_lossy(&err).into_owned(),
    )
}

/// Reads until a text has come.
pub async fn wait_for(streams: &mut Streams, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let chunk = tokio::time::timeout(Duration::from_secs(10), streams.output.next()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{text:?} did not come, only {all:?}"));
        all.push_str(&String::from_utf8_lossy(
            &chunk.expect("the output ended").unwrap().data,
        ));
    }
    all
}
