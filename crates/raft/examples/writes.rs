//! How many durable writes per second a group of one takes.
//!
//!     cargo run --release -p tripod-raft --example writes [SECONDS] [DIR]
//!
//! Each write replaces one object of 1 KiB and is on the disk when it is counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tripod_raft::store::{Key, Txn};
use tripod_raft::{Cluster, Options};

fn object(client: usize, i: u64) -> Txn {
    let key = Key::new("configmaps", "default", format!("c{client}-{}", i % 1000));
    let frame = format!(r#"{{"metadata":{{"name":"{}"}},"data":{{"v":""}}}}"#, key.name);
    let data = format!("{i:0width$}", width = 1024 - frame.len());
    let bytes = format!(
        r#"{{"metadata":{{"name":"{}"}},"data":{{"v":"{data}"}}}}"#,
        key.name
    );
    Txn::new().put(key, bytes)
}

async fn measure(cluster: &Cluster, clients: usize, time: Duration) {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let entries = || cluster.metrics().last_log_index.unwrap_or(0);
    let (before, start) = (entries(), Instant::now());
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (cluster, stop, done) = (cluster.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let sent = Instant::now();
                    cluster.submit(object(client, i)).await.expect("a write");
                    latencies.push(sent.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client"));
    }
    let (writes, took) = (done.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    latencies.sort();
    let at = |q: usize| latencies[(latencies.len() - 1) * q / 100].as_micros();
    println!(
        "{clients:3} clients: {:7.0} writes/s, {:6.0} entries/s, latency p50 {} us, p99 {} us",
        writes as f64 / took,
        (entries() - before) as f64 / took,
        at(50),
        at(99),
    );
}

/// The disk's own speed: one write of 1 KiB into written space, and fdatasync.
fn raw(dir: &std::path::Path, time: Duration) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let path = dir.join("raw");
    let file = std::fs::File::create(&path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        file.write_all_at(&[1; 1200], count * 1200 % (4 << 20))?;
        file.sync_data()?;
        count += 1;
    }
    println!(
        "fdatasync alone: {:.0}/s",
        count as f64 / start.elapsed().as_secs_f64()
    );
    std::fs::remove_file(path)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let time = Duration::from_secs(args.next().and_then(|s| s.parse().ok()).unwrap_or(5));
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = args
        .next()
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    raw(&dir, Duration::from_secs(1)).expect("the disk");
    let dir = dir.join("store");
    let cluster = Cluster::open(&dir, 1, Options::default()).await.expect("a store");
    cluster
        .initialize("127.0.0.1:2377")
        .await
        .expect("a group of one");
    println!("idle: {}", resident());
    for clients in [1, 16, 64] {
        measure(&cluster, clients, time).await;
    }
    println!("after: {}", resident());
    cluster.shutdown().await;
    drop(cluster);
    let start = Instant::now();
    let cluster = Cluster::open(&dir, 1, Options::default())
        .await
        .expect("the store again");
    println!(
        "reopened in {:?} at revision {}; {}",
        start.elapsed(),
        cluster.read().revision(),
        resident()
    );
    cluster.shutdown().await;
}
