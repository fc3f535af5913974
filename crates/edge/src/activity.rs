//! Whether anybody uses the listeners of this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static CAME: Notify = Notify::const_new();

/// A request came.
pub(crate) fn mark() {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    CAME.notify_one();
}

/// Waits for a request, and then until none has come for `time`. For one caller in the process.
pub async fn quiet_after_use(time: Duration) {
    CAME.notified().await;
    loop {
        let seen = REQUESTS.load(Ordering::Relaxed);
        tokio::time::sleep(time).await;
        if REQUESTS.load(Ordering::Relaxed) == seen {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_begins_after_the_last_request() {
        mark();
        let begun = tokio::time::Instant::now();
        let more = tokio::spawn(async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            mark();
        });
        quiet_after_use(Duration::from_secs(5)).await;
        assert!(more.is_finished());
        assert!(begun.elapsed() >= Duration::from_secs(9));
    }
}
