//! Standard error as the place where this program logs, and whether it takes what is written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use knarr_apiserver::health::HealthCheck;

static FAILED: AtomicBool = AtomicBool::new(false);

/// Standard error, watched.
pub struct Watched(io::Stderr);

pub fn stderr() -> Watched {
    Watched(io::stderr())
}

impl Write for Watched {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let written = self.0.write(text);
        FAILED.store(written.is_err(), Ordering::Relaxed);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Fails while the last line could not be written.
pub fn check() -> HealthCheck {
    HealthCheck::new("log", true, || match FAILED.load(Ordering::Relaxed) {
        true => Err("logging blocked".into()),
        false => Ok(()),
    })
}
