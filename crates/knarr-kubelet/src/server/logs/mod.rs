//! A container's log: the files that the runtime writes in CRI format, read as the API asks.

mod follow;
mod line;
mod read;
mod tail;

pub(super) use line::Output;
pub(super) use read::{Liveness, LogOptions, LogSource, read};
