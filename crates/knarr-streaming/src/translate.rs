//! A remote command for a WebSocket client, run by a SPDY server.
//!
//! The client's handshake is answered first; what goes wrong at the server afterwards is reported on the error channel, as upstream
//! does, so that a client sees why and not merely that its upgrade failed.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::remote_command::{Options, Outcome, Protocol, Streams, downgrade_status};
use crate::spdy::{Connection, Error, Side, Stream, StreamReader, StreamWriter};
use crate::upgrade::Session;
use crate::websocket::{self, ChannelMessage, ChannelProtocol, HandshakeError, Socket};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// A status is small; what a server writes beyond this is cut off.
const MAX_STATUS: usize = 1 << 20;

/// Agrees to the client's handshake; the session then connects to the server (`connect` yields the upgraded connection, protocol
/// `v4.channel.k8s.io`, or what to tell the client) and joins the two.
pub fn serve<F, T>(
    client: OnUpgrade,
    headers: &HeaderMap,
    options: Options,
    connect: F,
) -> Result<Session, HandshakeError>
where
    F: Future<Output = Result<T, String>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let name = websocket::choose_protocol(headers, &ChannelProtocol::NAMES)?;
    let response = websocket::accept(headers, name)?;
    let protocol = ChannelProtocol::of(name);
    let run = Box::pin(async move {
        match websocket::open(client).await {
            Ok(socket) => run(socket, protocol, options, connect).await,
            Err(error) => tracing::debug!(%error, "client left before the upgrade"),
        }
    });
    Ok(Session { response, run })
}

async fn run<F, T>(socket: Socket, protocol: ChannelProtocol, options: Options, connect: F)
where
    F: Future<Output = Result<T, String>>,
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut sink, source) = socket.split();
    // Clients take the first message as the sign that the command is being connected.
    if let Some(channel) = first_output(options) {
        let _ = sink.send(protocol.encode(channel, b"")).await;
    }
    let outcome = match connect.await {
        Ok(io) => join(&mut sink, source, protocol, options, io).await,
        Err(message) => Ok(Some(Outcome::Failure(message).to_bytes())),
    };
    if let Ok(Some(status)) = outcome {
        send_status(&mut sink, protocol, &status).await;
    }
    websocket::finish(&mut sink).await;
}

fn first_output(options: Options) -> Option<u8> {
    [(options.stdout, STDOUT), (options.stderr && !options.tty, STDERR), (true, ERROR)]
        .into_iter()
        .find(|(wanted, _)| *wanted)
        .map(|(_, channel)| channel)
}

/// The client left: there is nobody to report to.
struct ClientLeft;

/// Joins the client's channels with the server's streams until the command ends; its status, if the server gave one.
async fn join<T: AsyncRead + AsyncWrite + Send + 'static>(
    sink: &mut SplitSink<Socket, Message>,
    source: SplitStream<Socket>,
    protocol: ChannelProtocol,
    options: Options,
    io: T,
) -> Result<Option<Bytes>, ClientLeft> {
    let (connection, _none_come) = Connection::start(io, Side::Client);
    let streams = match Streams::open(&connection, options).await {
        Ok(streams) => streams,
        Err(error) => return Ok(Some(Outcome::Failure(error.to_string()).to_bytes())),
    };
    let (messages, mut outgoing) = mpsc::channel::<Message>(4);
    let (error, _) = streams.error.split();
    let output = async {
        let stdout = forward(streams.stdout, STDOUT, protocol, messages.clone());
        let stderr = forward(streams.stderr, STDERR, protocol, messages.clone());
        let (_, _, status) = tokio::join!(stdout, stderr, collect(error));
        drop(messages);
        status
    };
    let send = async {
        while let Some(message) = outgoing.recv().await {
            sink.send(message).await.map_err(|_| ClientLeft)?;
        }
        Ok(())
    };
    let finished = async {
        let (status, sent) = tokio::join!(output, send);
        sent.map(|()| status)
    };
    tokio::select! {
        finished = finished => finished.map(|status| (!status.is_empty()).then_some(status)),
        () = read_client(source, protocol, streams.stdin, streams.resize) => Err(ClientLeft),
    }
}

/// Server to client, one channel.
async fn forward(stream: Option<Stream>, channel: u8, protocol: ChannelProtocol, messages: mpsc::Sender<Message>) {
    let Some(stream) = stream else { return };
    let (mut reader, _) = stream.split();
    // A reset is how some servers end a stream: what came before it is all there is.
    while let Some(Ok(piece)) = reader.next().await {
        if messages.send(protocol.encode(channel, &piece)).await.is_err() {
            return;
        }
    }
}

/// The whole of the error stream: clients expect it in one message. A connection that was lost before the server told how the
/// command ended is told as that, lest the client take silence for success.
async fn collect(mut reader: StreamReader) -> Bytes {
    let mut all = BytesMut::new();
    let ended = loop {
        match reader.next().await {
            Some(Ok(piece)) => {
                let room = MAX_STATUS.saturating_sub(all.len()).min(piece.len());
                all.extend_from_slice(&piece[..room]);
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    match ended {
        Err(error @ Error::Closed) if all.is_empty() => {
            Outcome::Failure(format!("error reading from error stream: {error}")).to_bytes()
        }
        _ => all.freeze(),
    }
}

/// Client to server, until the client leaves.
async fn read_client(
    mut source: SplitStream<Socket>,
    protocol: ChannelProtocol,
    stdin: Option<Stream>,
    resize: Option<Stream>,
) {
    let mut stdin = stdin.map(|stream| stream.split().1);
    let mut resize = resize.map(|stream| stream.split().1);
    while let Some(message) = source.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                if !websocket::is_departure(&error) {
                    tracing::debug!(%error, "WebSocket client misbehaves");
                }
                return;
            }
        };
        match protocol.decode(message) {
            Some(ChannelMessage::Bytes(STDIN, bytes)) => write(&mut stdin, bytes).await,
            Some(ChannelMessage::Bytes(RESIZE, bytes)) => write(&mut resize, bytes).await,
            Some(ChannelMessage::Close(STDIN)) => finish(stdin.take()).await,
            Some(ChannelMessage::Close(RESIZE)) => finish(resize.take()).await,
            _ => {}
        }
    }
}

/// A command that does not read its stdin any more is no reason to end the session.
async fn write(stream: &mut Option<StreamWriter>, bytes: Bytes) {
    if let Some(writer) = stream
        && writer.send(bytes).await.is_err()
    {
        *stream = None;
    }
}

async fn finish(stream: Option<StreamWriter>) {
    if let Some(mut writer) = stream {
        let _ = writer.finish().await;
    }
}

async fn send_status(sink: &mut SplitSink<Socket, Message>, protocol: ChannelProtocol, status: &Bytes) {
    let told = match protocol.version {
        Protocol::V4 | Protocol::V5 => Some(status.clone()),
        Protocol::V1 | Protocol::V2 | Protocol::V3 => downgrade_status(status),
    };
    if let Some(told) = told {
        let _ = sink.send(protocol.encode(ERROR, &told)).await;
    }
}
