//! Seeds of sixty virtual seconds: as many as two minutes allow, or as many as `TRIPOD_SIM_SEEDS` says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tripod_sim::{Bug, Options, run};

/// How long the seeds of an ordinary run may take, of the time that CI gives them.
const PATIENCE: Duration = Duration::from_secs(100);

#[test]
fn no_seed_breaks_a_rule() {
    let wanted: Option<u64> = std::env::var("TRIPOD_SIM_SEEDS")
        .ok()
        .map(|n| n.parse().expect("a number"));
    let first: u64 = std::env::var("TRIPOD_SIM_FIRST").map_or(0, |n| n.parse().expect("a number"));
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let idle = AtomicU64::new(0);
    let broken = Mutex::new(Vec::new());
    let work = |thread: u64| {
        let mut done = (0_u64, 0_u64, 0_u64, 0_usize);
        let mut seed = first + thread;
        while wanted.map_or(begun.elapsed() < PATIENCE, |n| seed < first + n) {
            let outcome = run(Options::of(seed));
            if let Some(violation) = outcome.violation {
                let again = format!("TRIPOD_SIM_FIRST={seed} TRIPOD_SIM_SEEDS=1");
                broken.lock().unwrap().push(format!("{again}: {violation}"));
            }
            idle.fetch_add(
                u64::from(outcome.acknowledged == 0 || outcome.ran == 0),
                Ordering::Relaxed,
            );
            done = (
                done.0 + 1,
                done.1 + outcome.events,
                done.2 + outcome.faults,
                done.3 + outcome.acknowledged,
            );
            seed += threads;
        }
        done
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|t| {
                scope.spawn({
                    let work = &work;
                    move || work(t)
                })
            })
            .collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let sum = all
        .iter()
        .fold((0, 0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2, a.3 + b.3));
    println!(
        "{} seeds in {:.0?}: {} events, {} faults, {} acknowledged writes",
        sum.0,
        begun.elapsed(),
        sum.1,
        sum.2,
        sum.3
    );
    assert!(sum.0 > 0);
    let broken = broken.into_inner().unwrap();
    assert!(
        broken.is_empty(),
        "{} seeds break a rule:\n{}",
        broken.len(),
        broken.join("\n")
    );
    // Faults may leave no majority for all of a seed's time, but not often.
    let idle = idle.into_inner();
    assert!(
        idle * 10 <= sum.0,
        "in {idle} of {} seeds nothing happened",
        sum.0
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let once = |seed| {
        run(Options {
            millis: 20_000,
            ..Options::of(seed)
        })
    };
    let (a, b, c) = (once(7), once(7), once(8));
    assert_eq!(a, b);
    assert_ne!(a.trace, c.trace);
}

/// What the first seed says that shows the fault.
fn found(bug: Bug) -> Option<String> {
    (0..40).find_map(|seed| {
        let options = Options {
            nodes: 6,
            bug: Some(bug),
            ..Options::of(seed)
        };
        run(options).violation
    })
}

#[test]
fn faults_of_the_program_are_found() {
    let lost: &[&str] = &[
        "was acknowledged, and manager",
        "applies another entry",
        "both lead term",
    ];
    for (bug, texts) in [
        (Bug::EagerAcknowledge, &lost[..1]),
        (Bug::VotesForAnyone, lost),
        (Bug::StaleNode, &["runs"]),
        (Bug::LostReports, &["replicas of", "is told to run"]),
    ] {
        let said = found(bug).unwrap_or_else(|| panic!("{bug:?} is not found"));
        assert!(texts.iter().any(|text| said.contains(text)), "{bug:?}: {said}");
    }
}
