use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again and again until `question` has an answer, and fails with what it last heard if that takes longer than `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut question: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match question() {
            Ok(answer) => return Ok(answer),
            Err(error) if started.elapsed() > limit => bail!("{what}: not within {limit:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
