//! What is done by itself, once a second: comparisons that are due (`feedset --verify-every`), and a look at what
//! applications do while a feed has no session.

use super::Feeds;
use super::entry::FeedEntry;
use feedplex::session::FeedState;
use std::sync::Arc;
use std::time::Duration;
use volmgr::model::VerifyPlan;

/// How often it is looked whether one is due; also the shortest time between two.
const LOOK: Duration = Duration::from_secs(1);

/// One that could not be made or was cut off is not tried again before this; seconds.
const AGAIN: u64 = 60;

/// Is a comparison due? `tried`: when one was last begun, which may have failed. Times in seconds since
/// 1970-01-01 UTC, 0 for never.
fn due(plan: &VerifyPlan, tried: u64, now: u64) -> bool {
    let again = tried == 0 || now >= tried.saturating_add(AGAIN.min(plan.every));
    plan.every > 0 && again && now >= plan.last.saturating_add(plan.every)
}

/// Begins comparisons when they are due, until the daemon stops.
pub async fn run(feeds: Arc<Feeds>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if feeds.node.stopping() {
            return;
        }
        let entries: Vec<_> = feeds.entries().values().cloned().collect();
        for entry in entries {
            let Some((_, feed)) = feeds.record(&entry) else {
                continue;
            };
            if entry.running().is_none()
                && let Some(lane) = feeds.node.lane(&entry.lv())
            {
                feeds.pace(&entry, &lane);
            }
            let now = crate::daemon::events::now();
            if entry.status().state != FeedState::Live || !due(&feed.verify, entry.tried(), now) {
                continue;
            }
            if entry.begin_verify(now) {
                tokio::spawn(compare(feeds.clone(), entry, feed.verify.rate));
            }
        }
    }
}

async fn compare(feeds: Arc<Feeds>, entry: Arc<FeedEntry>, rate: u64) {
    if let Err(failure) = super::verify::scheduled(&feeds, &entry, rate).await {
        let object = format!("{} {}", entry.lv(), entry.peer);
        feeds
            .node
            .event("feed-not-verified", &object, &failure.to_string());
    }
    entry.end_verify();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_when_the_time_has_come_and_not_at_once_after_a_failure() {
        let plan = |every, last| VerifyPlan {
            every,
            last,
            rate: 0,
        };
        assert!(!due(&plan(0, 0), 0, 1000), "nobody asked for it");
        assert!(due(&plan(100, 0), 0, 1000), "never done");
        assert!(!due(&plan(100, 950), 0, 1000));
        assert!(due(&plan(100, 900), 0, 1000));
        assert!(!due(&plan(100, 900), 990, 1000), "just failed");
        assert!(due(&plan(100, 900), 940, 1000));
        assert!(due(&plan(2, 0), 998, 1000), "often is often");
    }
}
