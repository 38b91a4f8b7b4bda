//! Reading a log: from where, which lines, how far, and following it as it grows.

use std::io::SeekFrom;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::follow::{Change, Watcher};
use super::line::{Line, Output};
use super::tail;

/// What is sent at once when a log is read faster than the client takes it.
const BATCH: usize = 16 << 10;

/// A line that never ends is handed on in pieces of this size.
const MAX_LINE: usize = 1 << 20;

/// `v1.PodLogOptions`, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::server) struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub only: Option<Output>,
}

/// Whether what writes the log still does.
#[async_trait]
pub(in crate::server) trait Liveness: Send + Sync {
    async fn is_running(&self) -> bool;
}

/// The file, and its writer.
pub(in crate::server) struct LogSource {
    pub path: PathBuf,
    pub writer: Box<dyn Liveness>,
}

/// Sends the log to `client` until its end (of a followed log: until its writer ends) or until the client is gone.
pub(in crate::server) async fn read(
    source: LogSource,
    options: LogOptions,
    client: mpsc::Sender<std::io::Result<Bytes>>,
) {
    let outcome = tokio::select! {
        outcome = Reader::run(&source, &options, &client) => outcome,
        () = client.closed() => return,
    };
    if let Err(Stop::Failed(error)) = outcome {
        let _ = client.send(Err(error)).await;
    }
}

/// Why reading stops before the log's end.
enum Stop {
    /// Enough was sent, or nobody listens.
    Enough,
    Failed(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Failed(error)
    }
}

struct Reader<'a> {
    options: &'a LogOptions,
    client: &'a mpsc::Sender<std::io::Result<Bytes>>,
    batch: BytesMut,
    /// Bytes that may still be sent.
    left: u64,
    /// The last line of each output was partial: what follows continues it.
    continues: [bool; 2],
    /// What the file has of a line that is not finished yet.
    unfinished: Vec<u8>,
}

impl<'a> Reader<'a> {
    async fn run(
        source: &LogSource,
        options: &'a LogOptions,
        client: &'a mpsc::Sender<std::io::Result<Bytes>>,
    ) -> Result<(), Stop> {
        let mut reader = Reader {
            options,
            client,
            batch: BytesMut::new(),
            left: options.limit_bytes.unwrap_or(u64::MAX),
            continues: [false; 2],
            unfinished: Vec::new(),
        };
        // Watched before it is read, so that nothing written in between goes unnoticed.
        let watcher = if options.follow { Some(Watcher::new(&source.path)?) } else { None };
        let mut file = File::open(&source.path).await?;
        let start = match options.tail_lines {
            Some(lines) => tail::offset_of_last(&mut file, lines).await?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start)).await?;
        let mut file = BufReader::with_capacity(BATCH, file);
        reader.drain(&mut file).await?;
        if let Some(watcher) = watcher {
            reader.follow(source, watcher, file).await?;
        }
        reader.last_line().await
    }

    async fn follow(&mut self, source: &LogSource, mut watcher: Watcher, first: BufReader<File>) -> Result<(), Stop> {
        let mut file = first;
        let mut change = Change { replaced: false, perhaps_ended: true };
        loop {
            let running = !change.perhaps_ended || source.writer.is_running().await;
            // What was written before the writer ended is in the file by now.
            self.drain(&mut file).await?;
            if change.replaced
                && let Ok(next) = File::open(&source.path).await
            {
                file = BufReader::with_capacity(BATCH, next);
                self.drain(&mut file).await?;
            }
            if !running {
                return Ok(());
            }
            change = watcher.changed().await?;
        }
    }

    /// Sends the lines from here to the present end of the file.
    async fn drain(&mut self, file: &mut BufReader<File>) -> Result<(), Stop> {
        loop {
            let available = file.fill_buf().await?;
            if available.is_empty() {
                return self.flush().await;
            }
            let line_feed = available.iter().position(|byte| *byte == b'\n');
            let taken = line_feed.map_or(available.len(), |at| at + 1);
            self.unfinished.extend_from_slice(&available[..taken]);
            file.consume(taken);
            if line_feed.is_some() || self.unfinished.len() >= MAX_LINE {
                let line = std::mem::take(&mut self.unfinished);
                self.line(line.strip_suffix(b"\n").unwrap_or(&line)).await?;
                self.unfinished = line;
                self.unfinished.clear();
            }
        }
    }

    /// A log may end in the middle of a line when its writer was killed.
    async fn last_line(&mut self) -> Result<(), Stop> {
        let line = std::mem::take(&mut self.unfinished);
        if !line.is_empty() {
            self.line(&line).await?;
        }
        self.flush().await
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Stop> {
        let Some(line) = Line::parse(line) else {
            tracing::debug!("passing over a line that is not in CRI format");
            return Ok(());
        };
        if self.options.since.is_some_and(|since| line.timestamp < since) {
            return Ok(());
        }
        if self.options.only.is_some_and(|only| only != line.output) {
            return Ok(());
        }
        let continues = &mut self.continues[line.output as usize];
        let shows_timestamp = self.options.timestamps && !*continues;
        *continues = line.partial;
        if shows_timestamp {
            self.put(line.timestamp_text.as_bytes());
            self.put(b" ");
        }
        self.put(line.content);
        if !line.partial {
            self.put(b"\n");
        }
        if self.left == 0 {
            self.flush().await?;
            return Err(Stop::Enough);
        }
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.batch.extend_from_slice(&bytes[..room]);
        self.left -= room as u64;
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = self.batch.split().freeze();
        self.client.send(Ok(batch)).await.map_err(|_| Stop::Enough)
    }
}

#[cfg(test)]
mod tests;
