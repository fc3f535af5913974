//! What was acknowledged survives SIGKILL at any instant, and a log whose end was torn off.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Dir, key, put};
use rand::Rng;
use tripod_raft::store::Txn;
use tripod_raft::{Cluster, Options, RaftError};

const CHILD: &str = "TRIPOD_TEST_CRASH_DIR";
const WRITERS: usize = 8;

/// Small files and frequent snapshots, so that kills also hit the changes between files.
fn options() -> Options {
    Options {
        snapshot_entries: 300,
        segment_bytes: 32 << 10,
        ..Options::default()
    }
}

fn counter(writer: usize, value: u64) -> Txn {
    let bytes = format!(
        r#"{{"metadata":{{}},"value":{value},"pad":"{}"}}"#,
        "x".repeat(300)
    );
    Txn::new().put(key(&format!("w{writer}")), bytes)
}

fn value_of(cluster: &Cluster, writer: usize) -> u64 {
    let state = cluster.read();
    let Some(object) = state.get(&key(&format!("w{writer}"))) else {
        return 0;
    };
    serde_json::from_slice::<serde_json::Value>(&object.bytes).unwrap()["value"]
        .as_u64()
        .unwrap()
}

/// Not a test of its own: the process that is killed. Each writer counts upwards in its own object, and says which
/// value was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process_that_writes() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let cluster = Cluster::open(dir, 1, options()).await.unwrap();
    if !cluster.is_initialized() {
        cluster.initialize("a").await.unwrap();
    }
    let writers = (0..WRITERS).map(|writer| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            for value in value_of(&cluster, writer) + 1.. {
                let ok = cluster.submit(counter(writer, value)).await.unwrap();
                println!("ack {writer} {value} {}", ok.revision);
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Kills and reaps the child also when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the child for a while; returns the last acknowledged value of each writer and the highest revision.
fn run_and_kill(dir: &Path, after: Duration) -> (BTreeMap<usize, u64>, u64) {
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args([
                "child_process_that_writes",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let out = child.0.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut acks, mut revision) = (BTreeMap::new(), 0);
        // A line that was cut off by the kill acknowledged nothing.
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let Some((_, ack)) = line.split_once("ack ") else {
                continue;
            };
            let words: Vec<u64> = ack.split(' ').filter_map(|word| word.parse().ok()).collect();
            if let [writer, value, at] = words[..] {
                acks.insert(writer as usize, value);
                revision = revision.max(at);
            }
        }
        (acks, revision)
    });
    // The instant of the kill is what is tested, not how long something takes.
    std::thread::sleep(after);
    drop(child);
    reader.join().unwrap()
}

#[tokio::test]
async fn acknowledged_writes_survive_sigkill() {
    let dir = Dir::new();
    let (mut total, mut random) = (0, rand::rng());
    for round in 0..12 {
        let after = Duration::from_millis(random.random_range(20..400));
        let (acks, revision) = run_and_kill(&dir.path(), after);
        let cluster = Cluster::open(dir.path(), 1, options()).await.unwrap();
        assert!(cluster.read().revision() >= revision, "round {round}");
        for (writer, acknowledged) in acks {
            let found = value_of(&cluster, writer);
            // At most one write per writer was under way.
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "{writer}: {acknowledged}, found {found}"
            );
            total = total.max(found);
        }
        cluster.shutdown().await;
    }
    assert!(total > 50, "the child hardly wrote: {total}");
}

fn last_segment(dir: &Path) -> PathBuf {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    names
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"))
        .max()
        .unwrap()
}

async fn written(dir: &Path, count: usize) {
    let cluster = Cluster::open(dir, 1, Options::default()).await.unwrap();
    cluster.initialize("a").await.unwrap();
    for i in 0..count {
        cluster.submit(put(&format!("p{i}"))).await.unwrap();
    }
    cluster.shutdown().await;
}

/// The end of the last record.
fn used(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

#[tokio::test]
async fn a_torn_end_is_dropped_and_writing_goes_on() {
    for cut in [1, 7, 40, 60, 200] {
        let dir = Dir::new();
        written(&dir.path(), 20).await;
        let path = last_segment(&dir.path());
        let (end, size) = (used(&path), std::fs::metadata(&path).unwrap().len());
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        if cut % 2 == 0 {
            // The file lost its end altogether.
            file.set_len(end - cut).unwrap();
        } else {
            file.write_all_at(&vec![0xa5; cut as usize], end - cut).unwrap();
        }
        let cluster = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
        let revision = cluster.read().revision();
        assert!((18..20).contains(&revision), "cut {cut}: {revision}");
        for i in 0..5 {
            assert_eq!(
                cluster.submit(put(&format!("q{i}"))).await.unwrap().revision,
                revision + 1 + i
            );
        }
        cluster.shutdown().await;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
        let cluster = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
        assert_eq!(cluster.read().revision(), revision + 5);
        cluster.shutdown().await;
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_not_taken_for_a_torn_end() {
    let dir = Dir::new();
    written(&dir.path(), 20).await;
    let path = last_segment(&dir.path());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let at = used(&path) / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let error = Cluster::open(dir.path(), 1, Options::default())
        .await
        .unwrap_err();
    assert!(matches!(error, RaftError::Corrupt { .. }), "{error}");
    file.write_all_at(&byte, at).unwrap();
    let cluster = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
    assert_eq!(cluster.read().revision(), 20);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_missing_file_is_an_error() {
    let dir = Dir::new();
    let small = Options {
        segment_bytes: 16 << 10,
        ..Options::default()
    };
    let cluster = Cluster::open(dir.path(), 1, small.clone()).await.unwrap();
    cluster.initialize("a").await.unwrap();
    for i in 0..400 {
        cluster.submit(put(&format!("p{i}"))).await.unwrap();
    }
    cluster.shutdown().await;
    let mut segments: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    segments.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    segments.sort();
    assert!(segments.len() > 3);
    for lost in [&segments[0], &segments[1]] {
        let aside = dir.path().join("aside");
        std::fs::rename(lost, &aside).unwrap();
        let error = Cluster::open(dir.path(), 1, small.clone()).await.unwrap_err();
        assert!(matches!(error, RaftError::Corrupt { .. }), "{error}");
        std::fs::rename(&aside, lost).unwrap();
    }
    let cluster = Cluster::open(dir.path(), 1, small).await.unwrap();
    assert_eq!(cluster.read().revision(), 400);
    cluster.shutdown().await;
}
