//! A group of one: what is written is read, watched, and there after a restart.

mod common;

use std::time::Duration;

use common::{Dir, json, key, put};
use tripod_raft::store::{Change, Expected, ListQuery, Txn, TxnError, WatchFilter};
use tripod_raft::{Cluster, Options, RaftError};

#[tokio::test]
async fn write_read_watch_and_reopen() {
    let dir = Dir::new();
    let cluster = Cluster::open(dir.path(), 7, Options::default()).await.unwrap();
    assert!(!cluster.is_initialized());
    assert!(matches!(
        cluster.submit(put("a")).await,
        Err(RaftError::NotInitialized)
    ));
    cluster.initialize("10.0.0.1:2377").await.unwrap();
    assert!(cluster.is_initialized() && cluster.is_leader());
    assert!(matches!(
        cluster.initialize("10.0.0.1:2377").await,
        Err(RaftError::AlreadyInitialized)
    ));
    assert!(matches!(
        Cluster::open(dir.path(), 7, Options::default()).await,
        Err(RaftError::Busy(_))
    ));

    let mut watch = cluster.watch(WatchFilter::kinds(["pods"]), 0).unwrap();
    let ok = cluster.submit(put("a")).await.unwrap();
    assert_eq!(ok.revision, 1);
    assert_eq!(cluster.read().get(&key("a")), ok.objects[0].as_ref());
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!((event.revision, event.change), (1, Change::Added));

    let refused = cluster
        .submit(Txn::new().create(key("a"), json("a"), vec![]))
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        RaftError::Rejected(TxnError::Conflict {
            expected: Expected::Absent,
            actual: Some(1),
            ..
        })
    ));
    cluster.submit(put("b")).await.unwrap();
    cluster.submit(Txn::new().delete(key("a"))).await.unwrap();
    assert_eq!(cluster.read_index().await.unwrap().revision(), 3);
    cluster.shutdown().await;
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 2);
    assert_eq!(watch.next().await.unwrap().unwrap().change, Change::Deleted);
    assert!(watch.next().await.is_none());
    assert!(matches!(cluster.submit(put("c")).await, Err(RaftError::Closed)));

    assert!(matches!(
        Cluster::open(dir.path(), 8, Options::default()).await,
        Err(RaftError::Corrupt { .. })
    ));
    let again = Cluster::open(dir.path(), 7, Options::default()).await.unwrap();
    assert!(again.is_leader());
    let state = again.read();
    assert_eq!((state.revision(), state.len()), (3, 1));
    assert_eq!(again.submit(put("c")).await.unwrap().revision, 4);
    again.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_bounds_the_log() {
    let dir = Dir::new();
    let options = Options {
        snapshot_entries: 50,
        segment_bytes: 16 << 10,
        ..Options::default()
    };
    let cluster = Cluster::open(dir.path(), 1, options.clone()).await.unwrap();
    cluster.initialize("a").await.unwrap();
    for i in 0..2000 {
        cluster.submit(put(&format!("p{}", i % 40))).await.unwrap();
    }
    // Snapshots are made beside the writers: wait for the one that covers most.
    while cluster.metrics().snapshot_index.is_none_or(|index| index < 1900) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.shutdown().await;
    let segments = std::fs::read_dir(dir.path()).unwrap().flatten();
    let bytes: u64 = segments.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes < 300 << 10, "{bytes}");
    let again = Cluster::open(dir.path(), 1, options).await.unwrap();
    assert_eq!((again.read().revision(), again.read().len()), (2000, 40));
    assert!(matches!(
        again.watch(WatchFilter::all(), 1),
        Err(RaftError::Gone(_))
    ));
    again.shutdown().await;
}

#[tokio::test]
async fn a_large_entry_and_one_too_large() {
    let dir = Dir::new();
    let cluster = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
    cluster.initialize("a").await.unwrap();
    let big = |size| {
        let bytes = format!(r#"{{"metadata":{{}},"data":"{}"}}"#, "x".repeat(size));
        cluster.submit(Txn::new().put(key("big"), bytes))
    };
    assert!(matches!(big(17 << 20).await, Err(RaftError::TooLarge { .. })));
    assert_eq!(big(9 << 20).await.unwrap().revision, 1);
    assert_eq!(big(10).await.unwrap().revision, 2);
    cluster.shutdown().await;
    let again = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
    assert_eq!(again.read().revision(), 2);
    again.shutdown().await;
}

#[tokio::test]
async fn the_pages_of_a_list_are_of_one_revision() {
    let dir = Dir::new();
    let cluster = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
    cluster.initialize("a").await.unwrap();
    for i in 0..10 {
        cluster.submit(put(&format!("p{i}"))).await.unwrap();
    }
    let first = cluster.list(&ListQuery::new("pods").page(4, None)).unwrap();
    for i in 0..10 {
        cluster
            .submit(Txn::new().delete(key(&format!("p{i}"))))
            .await
            .unwrap();
    }
    let next = first.next.clone().unwrap();
    let second = cluster
        .list(&ListQuery::new("pods").page(4, Some(&next)))
        .unwrap();
    assert_eq!((second.revision, second.items.len()), (10, 4));
    let third = cluster
        .list(&ListQuery::new("pods").page(4, second.next.as_ref()))
        .unwrap();
    assert_eq!((third.items.len(), third.next), (2, None));
    // The list is finished, so its snapshot is no longer kept.
    assert!(matches!(
        cluster.list(&ListQuery::new("pods").page(4, Some(&next))),
        Err(RaftError::Gone(_))
    ));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_locked_store_opens_only_with_its_key() {
    let dir = Dir::new();
    let with = |key: Option<u8>| Options {
        unlock_key: key.map(|k| [k; 32]),
        ..Options::default()
    };
    let cluster = Cluster::open(dir.path(), 1, with(Some(1))).await.unwrap();
    cluster.initialize("a").await.unwrap();
    let secret = r#"{"metadata":{},"data":"c2VjcmV0IHNlY3JldCBzZWNyZXQ="}"#;
    cluster.submit(Txn::new().put(key("s"), secret)).await.unwrap();
    cluster.snapshot().await.unwrap();
    cluster.shutdown().await;
    for entry in std::fs::read_dir(dir.path()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(
            !bytes.windows(16).any(|w| w == b"c2VjcmV0IHNlY3Jl"),
            "{:?}",
            entry.path()
        );
    }
    for wrong in [None, Some(2)] {
        assert!(matches!(
            Cluster::open(dir.path(), 1, with(wrong)).await,
            Err(RaftError::Locked)
        ));
    }
    let cluster = Cluster::open(dir.path(), 1, with(Some(1))).await.unwrap();
    cluster.set_unlock_key(Some(&[2; 32])).unwrap();
    cluster.shutdown().await;
    assert!(matches!(
        Cluster::open(dir.path(), 1, with(Some(1))).await,
        Err(RaftError::Locked)
    ));
    let cluster = Cluster::open(dir.path(), 1, with(Some(2))).await.unwrap();
    cluster.set_unlock_key(None).unwrap();
    cluster.shutdown().await;
    let cluster = Cluster::open(dir.path(), 1, with(None)).await.unwrap();
    assert!(cluster.read().get(&key("s")).is_some());
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_is_told_and_an_idle_one_is_not() {
    let dir = Dir::new();
    let mut options = Options::default();
    options.history.events = 20;
    let cluster = Cluster::open(dir.path(), 1, options).await.unwrap();
    cluster.initialize("a").await.unwrap();
    let mut slow = cluster.watch(WatchFilter::kinds(["pods"]), 0).unwrap();
    let mut idle = cluster.watch(WatchFilter::kinds(["nodes"]), 0).unwrap();
    assert_eq!(idle.ready().unwrap(), vec![]);
    for i in 0..50 {
        cluster.submit(put(&format!("p{i}"))).await.unwrap();
    }
    assert!(slow.next().await.unwrap().is_err());
    assert!(slow.next().await.is_none());
    assert_eq!(idle.revision(), 50);
    cluster
        .submit(Txn::new().put(tripod_raft::store::Key::cluster("nodes", "n"), json("n")))
        .await
        .unwrap();
    assert_eq!(idle.next().await.unwrap().unwrap().revision, 51);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_miss_nothing_under_load() {
    let dir = Dir::new();
    let cluster = Cluster::open(dir.path(), 1, Options::default()).await.unwrap();
    cluster.initialize("a").await.unwrap();
    let watchers: Vec<_> = (0..4)
        .map(|_| {
            let mut watch = cluster.watch(WatchFilter::all(), 0).unwrap();
            tokio::spawn(async move {
                for revision in 1..=1600 {
                    assert_eq!(watch.next().await.unwrap().unwrap().revision, revision);
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..16)
        .map(|w| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    cluster.submit(put(&format!("w{w}-{}", i % 10))).await.unwrap();
                }
            })
        })
        .collect();
    for task in writers.into_iter().chain(watchers) {
        tokio::time::timeout(Duration::from_secs(60), task)
            .await
            .unwrap()
            .unwrap();
    }
    // Far fewer entries than transactions: they were grouped.
    let entries = cluster.metrics().last_log_index.unwrap();
    assert!(entries < 1200, "{entries}");
    cluster.shutdown().await;
}
