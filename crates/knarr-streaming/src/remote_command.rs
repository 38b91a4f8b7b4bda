//! Commands run elsewhere (exec, attach): which streams they have in which protocol version, how they open, how they report their end.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::spdy::{Connection, Error, Headers, Incoming, Stream};

/// The versions of the protocol that the WebSocket and SPDY forms share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `channel.k8s.io`: a failure is plain text on the error stream.
    V1,
    /// Fixes a hang of stdin in v1.
    V2,
    /// Adds the resize stream.
    V3,
    /// The end is always reported, as a `Status` in JSON.
    V4,
    /// WebSocket only: a client can close its stdin.
    V5,
}

impl Protocol {
    const NAMES: [(&'static str, Protocol); 5] = [
        ("v5.channel.k8s.io", Protocol::V5),
        ("v4.channel.k8s.io", Protocol::V4),
        ("v3.channel.k8s.io", Protocol::V3),
        ("v2.channel.k8s.io", Protocol::V2),
        ("channel.k8s.io", Protocol::V1),
    ];

    pub fn name(self) -> &'static str {
        Protocol::NAMES.iter().find(|(_, protocol)| *protocol == self).map_or("", |(name, _)| name)
    }

    pub fn from_name(name: &str) -> Option<Protocol> {
        Protocol::NAMES.iter().find(|(known, _)| *known == name).map(|(_, protocol)| *protocol)
    }

    /// The first of the client's offers that is understood over SPDY. A client that offers none means the first version.
    pub fn negotiate(offers: &[&str]) -> Option<Protocol> {
        if offers.is_empty() {
            return Some(Protocol::V1);
        }
        offers.iter().filter_map(|name| Protocol::from_name(name)).find(|protocol| *protocol != Protocol::V5)
    }
}

/// Which streams a command was asked to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    /// Never with `tty`: a terminal has one output.
    pub stderr: bool,
    pub tty: bool,
}

/// The streams of one command over a SPDY connection.
pub struct Streams {
    pub error: Stream,
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub resize: Option<Stream>,
}

fn wanted(options: Options) -> [(&'static str, bool); 5] {
    [
        ("error", true),
        ("stdin", options.stdin),
        ("stdout", options.stdout),
        ("stderr", options.stderr && !options.tty),
        ("resize", options.tty),
    ]
}

impl Streams {
    /// The client's end: opens the streams in upstream's order.
    pub async fn open(connection: &Connection, options: Options) -> Result<Streams, Error> {
        let mut streams = Vec::with_capacity(5);
        for (kind, _) in wanted(options).into_iter().filter(|(_, wanted)| *wanted) {
            streams.push((kind, connection.open(Headers::new(&[("streamType", kind)])).await?));
        }
        Streams::assemble(streams).ok_or(Error::Closed)
    }

    /// The server's end: waits until the client opened what it asked for.
    pub async fn accept(incoming: &mut Incoming, options: Options) -> Result<Streams, Error> {
        let mut missing: Vec<&str> = wanted(options).into_iter().filter(|(_, w)| *w).map(|(kind, _)| kind).collect();
        let mut streams = Vec::with_capacity(missing.len());
        while !missing.is_empty() {
            let stream = incoming.next().await.ok_or(Error::Closed)?;
            let kind = stream.headers().get("streamType").to_owned();
            // A stream that was not asked for is dropped, as upstream does after logging it.
            if let Some(at) = missing.iter().position(|wanted| *wanted == kind) {
                streams.push((missing.remove(at), stream));
            }
        }
        Streams::assemble(streams).ok_or(Error::Closed)
    }

    fn assemble(mut opened: Vec<(&'static str, Stream)>) -> Option<Streams> {
        let mut take = |kind: &str| {
            let at = opened.iter().position(|(k, _)| *k == kind)?;
            Some(opened.swap_remove(at).1)
        };
        Some(Streams {
            error: take("error")?,
            stdin: take("stdin"),
            stdout: take("stdout"),
            stderr: take("stderr"),
            resize: take("resize"),
        })
    }
}

/// How a command ended, as the error stream tells it from v4 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The command ran and ended with this code.
    ExitCode(i32),
    /// The command could not be run or watched.
    Failure(String),
}

impl Outcome {
    /// The `metav1.Status` that says so.
    pub fn to_status(&self) -> Value {
        match self {
            Outcome::Success => json!({"metadata": {}, "status": "Success"}),
            Outcome::ExitCode(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Failure(message) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"),
                "details": {"causes": [{"message": message}]},
            }),
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        self.to_status().to_string().into()
    }
}

/// What the error stream of a v4 server means to a client of an older version: nothing, or the message in plain text.
pub fn downgrade_status(status: &[u8]) -> Option<Bytes> {
    let Ok(value) = serde_json::from_slice::<Value>(status) else {
        return (!status.is_empty()).then(|| Bytes::copy_from_slice(status));
    };
    match value["status"].as_str() {
        Some("Success") => None,
        _ => Some(value["message"].as_str().unwrap_or("unknown error").to_owned().into()),
    }
}
