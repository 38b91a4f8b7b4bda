use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

struct Writer(Arc<AtomicBool>);

#[async_trait]
impl Liveness for Writer {
    async fn is_running(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

const LOG: &str = "\
2026-01-01T00:00:00.000000001Z stdout F one
2026-01-01T00:00:01Z stderr P two,
2026-01-01T00:00:02Z stderr F three
2026-01-01T00:00:03Z stdout F four
";

fn open(path: &Path, running: &Arc<AtomicBool>, options: LogOptions) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let source = LogSource { path: path.to_owned(), writer: Box::new(Writer(running.clone())) };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(read(source, options, sender));
    receiver
}

async fn all(mut receiver: mpsc::Receiver<std::io::Result<Bytes>>) -> String {
    let mut text = Vec::new();
    while let Some(piece) = receiver.recv().await {
        text.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn until(receiver: &mut mpsc::Receiver<std::io::Result<Bytes>>, wanted: &str) {
    let mut text = String::new();
    while text != wanted {
        text.push_str(std::str::from_utf8(&receiver.recv().await.unwrap().unwrap()).unwrap());
        assert!(wanted.starts_with(&text), "{text}");
    }
}

#[tokio::test]
async fn options_select_what_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    std::fs::write(&path, LOG).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let default = LogOptions::default();
    for (options, expected) in [
        (default.clone(), "one\ntwo,three\nfour\n"),
        (LogOptions { tail_lines: Some(1), ..default.clone() }, "four\n"),
        (LogOptions { tail_lines: Some(0), ..default.clone() }, ""),
        (LogOptions { limit_bytes: Some(6), ..default.clone() }, "one\ntw"),
        (LogOptions { since: Some("2026-01-01T00:00:03Z".parse().unwrap()), ..default.clone() }, "four\n"),
        (LogOptions { only: Some(Output::Stderr), ..default.clone() }, "two,three\n"),
        (
            LogOptions { timestamps: true, limit_bytes: Some(64), ..default.clone() },
            "2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:01Z two,three\n"[..64].trim_start(),
        ),
        (LogOptions { follow: true, ..default.clone() }, "one\ntwo,three\nfour\n"),
    ] {
        assert_eq!(all(open(&path, &ended, options.clone())).await, expected, "{options:?}");
    }
}

#[tokio::test]
async fn following_sees_growth_rotation_and_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    std::fs::write(&path, LOG).unwrap();
    let running = Arc::new(AtomicBool::new(true));
    let mut receiver = open(&path, &running, LogOptions { follow: true, ..LogOptions::default() });
    until(&mut receiver, "one\ntwo,three\nfour\n").await;

    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"2026-01-01T00:00:04Z stdout F fi").unwrap();
    file.write_all(b"ve\n").unwrap();
    until(&mut receiver, "five\n").await;

    std::fs::rename(&path, directory.path().join("0.log.20260101")).unwrap();
    file.write_all(b"2026-01-01T00:00:05Z stdout F last of the old\n").unwrap();
    let mut next = std::fs::File::create(&path).unwrap();
    next.write_all(b"2026-01-01T00:00:06Z stdout F first of the new\n").unwrap();
    until(&mut receiver, "last of the old\nfirst of the new\n").await;

    next.write_all(b"2026-01-01T00:00:07Z stdout F killed in the mid").unwrap();
    running.store(false, Ordering::SeqCst);
    drop(next);
    assert_eq!(all(receiver).await, "killed in the mid\n");
}
