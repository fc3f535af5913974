//! How long the manager takes from a request to assignments and from reports to running. Run with `--nocapture` to see
//! the times; the bounds here are for a slow machine and an unoptimised build.

mod common;

use std::time::{Duration, Instant};

use common::{FakeNode, cluster, service};
use tripod_engine::Filters;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_replicas_are_assigned_and_run_soon() {
    let c = cluster().await;
    let node = FakeNode::start(&c.manager);
    c.manager.service_create(service("warm", 1)).await.unwrap();
    c.running("warm", 1).await;
    for n in [50, 200] {
        let begun = Instant::now();
        let name = format!("s{n}");
        c.manager.service_create(service(&name, n)).await.unwrap();
        let created = begun.elapsed();
        c.until("assigned", |m| {
            let tasks = m.tasks(&Filters::from_iter([("service", name.as_str())])).ok()?;
            let placed = tasks.iter().filter(|t| !t.pod.spec.node_name.is_empty()).count() as u64;
            (placed == n).then_some(())
        })
        .await;
        let assigned = begun.elapsed();
        c.running(&name, n).await;
        let running = begun.elapsed();
        println!("{n} replicas: created {created:?}, assigned {assigned:?}, running {running:?}");
        assert!(running < Duration::from_secs(10), "{running:?}");
    }
    println!("{} assignments", node.seen.lock().unwrap().assignments);
}
