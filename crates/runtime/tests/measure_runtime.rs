//! What starting a container costs. Not a test of anything: run it by name with `--ignored --nocapture`.

mod common;

use std::time::Instant;

use common::{Node, can_run, cmd};
use tripod_agent::ports::Runtime;

fn cpu_ms() -> f64 {
    let used = |who| {
        nix::sys::resource::getrusage(who).map(|u| {
            let t = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 * 1e3 + t.tv_usec() as f64 / 1e3;
            t(u.user_time()) + t(u.system_time())
        })
    };
    used(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap_or(0.0)
}

/// Milliseconds of processor time of a process and the children that it collected.
fn process_cpu_ms(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|v| v.parse().unwrap())
        .collect();
    fields.iter().sum::<f64>() * 10.0
}

fn rss_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    status
        .lines()
        .find_map(|l| l.strip_prefix("Rss:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn start_to_exit() {
    if !can_run() {
        return;
    }
    let mut node = Node::new().await;
    let keeper = node.keeper_pid();
    println!("keeper RSS with no container: {} KiB", rss_kib(keeper));
    let (mut walls, mut starts) = (Vec::new(), Vec::new());
    let (own, its) = (cpu_ms(), process_cpu_ms(keeper));
    for _ in 0..50 {
        let begin = Instant::now();
        node.runtime.start(node.request(1, cmd(&["true"]))).await.unwrap();
        starts.push(begin.elapsed().as_secs_f64() * 1e3);
        node.exit().await;
        walls.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = (cpu_ms() - own + process_cpu_ms(keeper) - its) / 50.0;
    walls.sort_by(f64::total_cmp);
    starts.sort_by(f64::total_cmp);
    println!(
        "start answered {:.1} ms, exit reported {:.1} ms (medians of 50), CPU {cpu:.1} ms each",
        starts[25], walls[25]
    );
    for n in 2..202u8 {
        node.runtime
            .start(node.request(n, cmd(&["sleep", "1000"])))
            .await
            .unwrap();
    }
    println!("keeper RSS with 200 containers: {} KiB", rss_kib(keeper));
    node.finish().await;
}
