//! How long a container that keeps ending waits before it is started again.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The first wait.
const INITIAL: Duration = Duration::from_secs(10);
/// The longest wait. A container that ran twice as long starts over with the first.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    at: Timestamp,
}

/// The waits of a pod's containers, by name and hash: a changed container starts afresh.
#[derive(Debug, Default)]
pub struct RestartBackOff {
    entries: HashMap<(String, String), Entry>,
}

impl RestartBackOff {
    /// How much longer the container that ended at `finished` has to wait, and the whole wait; `None` if it may start.
    pub fn waits(&self, name: &str, hash: &str, finished: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(&(name.to_owned(), hash.to_owned()))?;
        if is_over(entry, finished) {
            return None;
        }
        let since = elapsed(finished, now);
        (since < entry.delay).then(|| (entry.delay - since, entry.delay))
    }

    /// Counts a start of a container whose last one ended at `finished`.
    pub fn count_start(&mut self, name: &str, hash: &str, finished: Timestamp, now: Timestamp) {
        let key = (name.to_owned(), hash.to_owned());
        let delay = match self.entries.get(&key) {
            Some(entry) if !is_over(entry, finished) => (entry.delay * 2).min(LONGEST),
            _ => INITIAL,
        };
        self.entries.insert(key, Entry { delay, at: now });
    }
}

/// The container ran long enough since its last start to be trusted again.
fn is_over(entry: &Entry, finished: Timestamp) -> bool {
    elapsed(entry.at, finished) > LONGEST * 2
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let duration: SignedDuration = to.duration_since(from);
    Duration::try_from(duration).unwrap_or_default()
}

/// A wait as Go prints it, since it is part of messages that users know: `10s`, `1m20s`, `5m0s`.
pub fn in_words(delay: Duration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_first_restart_is_immediate_and_waits_double_to_five_minutes() {
        let mut backoff = RestartBackOff::default();
        assert_eq!(backoff.waits("c", "h", at(0), at(0)), None);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.count_start("c", "h", at(now), at(now));
            let (left, whole) = backoff.waits("c", "h", at(now), at(now)).expect("a wait");
            assert_eq!(left, whole);
            waits.push(whole.as_secs());
            now += i64::try_from(whole.as_secs()).expect("small");
            assert_eq!(backoff.waits("c", "h", at(now - whole.as_secs() as i64), at(now)), None);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_good_minutes_are_forgiven_and_a_changed_container_starts_afresh() {
        let mut backoff = RestartBackOff::default();
        backoff.count_start("c", "h", at(0), at(0));
        assert_eq!(backoff.waits("c", "other", at(1), at(1)), None);
        assert!(backoff.waits("c", "h", at(600), at(600)).is_some());
        assert_eq!(backoff.waits("c", "h", at(601), at(601)), None);
        backoff.count_start("c", "h", at(601), at(601));
        assert_eq!(backoff.waits("c", "h", at(602), at(602)).map(|(_, whole)| whole.as_secs()), Some(10));
    }

    #[test]
    fn waits_read_as_upstreams() {
        assert_eq!(in_words(Duration::from_secs(10)), "10s");
        assert_eq!(in_words(Duration::from_secs(80)), "1m20s");
        assert_eq!(in_words(Duration::from_secs(300)), "5m0s");
    }
}
