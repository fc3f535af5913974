//! What the server counts of requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the time that requests take, seconds.
const BOUNDS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 5.0, 30.0];

/// Requests by verb, resource and status; and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(String, String), Timing>>);

#[derive(Debug, Default, Clone)]
struct Timing {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Counters {
    /// Counts a request.
    pub(crate) fn note(&self, verb: &str, resource: &str, code: u16, took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timing = all.entry((verb.to_owned(), resource.to_owned())).or_default();
        *timing.codes.entry(code).or_default() += 1;
        let seconds = took.as_secs_f64();
        for (bucket, bound) in timing.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        timing.count += 1;
        timing.sum += seconds;
    }
}

impl Counters {
    /// Writes them in the text form of Prometheus.
    pub(crate) fn write(&self, out: &mut String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        out.push_str("# HELP apiserver_request_total Requests answered, by verb, resource and status.\n");
        out.push_str("# TYPE apiserver_request_total counter\n");
        for ((verb, resource), timing) in &all {
            for (code, count) in &timing.codes {
                let _ = writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}} {count}"
                );
            }
        }
        out.push_str("# HELP apiserver_request_duration_seconds Time from a request to its answer.\n");
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        for ((verb, resource), timing) in &all {
            let labels = format!("resource=\"{resource}\",verb=\"{verb}\"");
            for (bucket, bound) in timing.buckets.iter().zip(BOUNDS) {
                let _ = writeln!(
                    out,
                    "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {bucket}"
                );
            }
            let _ = writeln!(
                out,
                "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}",
                timing.count
            );
            let _ = writeln!(
                out,
                "apiserver_request_duration_seconds_sum{{{labels}}} {}",
                timing.sum
            );
            let _ = writeln!(
                out,
                "apiserver_request_duration_seconds_count{{{labels}}} {}",
                timing.count
            );
        }
    }
}
