//! One question for many askers: whoever waits while a question is under way shares the answer to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{Result, Revision};

/// Asks etcd how far it is, once for all who ask at about the same time. An answer is only given to those who asked before the
/// question was sent: it must not be older than the asking.
pub(super) struct Turns {
    /// How many have asked.
    asked: AtomicU64,
    /// The last answer, and up to which asker it is good for.
    answered: Mutex<(u64, Revision)>,
    turn: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Turns { asked: AtomicU64::new(0), answered: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Turns {
    pub async fn ask<F: Future<Output = Result<Revision>>>(&self, question: impl FnOnce() -> F) -> Result<Revision> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let _turn = self.turn.acquire().await;
        let (good_for, revision) = *self.answered.lock();
        if good_for >= ticket {
            return Ok(revision);
        }
        let good_for = self.asked.load(Ordering::Acquire);
        let revision = question().await?;
        *self.answered.lock() = (good_for, revision);
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_askers_share_one_question() {
        let turns = Turns::default();
        let questions = AtomicU64::new(0);
        let ask = || {
            turns.ask(|| async {
                tokio::task::yield_now().await;
                Ok(Revision(questions.fetch_add(1, Ordering::Relaxed) + 1))
            })
        };
        let answers = futures::future::join_all((0..10).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|r| r.0 <= 2)));
        assert!(questions.load(Ordering::Relaxed) <= 2);
        assert_eq!(
            ask().await.expect("answers"),
            Revision(questions.load(Ordering::Relaxed)),
            "a later asker asks anew"
        );
    }
}
