//! WebSocket clients, as kubectl and the client libraries are, against SPDY servers, as runtimes are: over real HTTP on loopback.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use knarr_streaming::remote_command::{Options, Outcome, Streams};
use knarr_streaming::spdy::{Connection, Side};
use knarr_streaming::upgrade::Session;
use knarr_streaming::{translate, tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

const OPTIONS: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

/// An HTTP server on loopback that answers one connection's requests with upgrades.
async fn serve<F>(answer: F) -> TcpStream
where
    F: Fn(hyper::upgrade::OnUpgrade, http::HeaderMap) -> Session + Send + Sync + Clone + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let answer = answer.clone();
            async move {
                let client = hyper::upgrade::on(&mut request);
                let session = answer(client, request.headers().clone());
                tokio::spawn(session.run);
                Ok::<Response<Empty<Bytes>>, Infallible>(session.response.map(|()| Empty::new()))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ = connection.with_upgrades().await;
    });
    TcpStream::connect(address).await.unwrap()
}

async fn connect(stream: TcpStream, protocol: Option<&str>) -> WebSocketStream<TcpStream> {
    let mut request = "ws://localhost/exec".into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    client_async(request, stream).await.unwrap().0
}

/// A SPDY server that runs `cat`: stdin to stdout, a word on stderr, then its status.
fn cat(outcome: Outcome) -> DuplexStream {
    let (ours, theirs) = duplex(4096);
    tokio::spawn(async move {
        let (connection, mut incoming) = Connection::start(theirs, Side::Server);
        let mut streams = Streams::accept(&mut incoming, OPTIONS).await.unwrap();
        let (mut stdin, mut stdout) = (streams.stdin.take().unwrap(), streams.stdout.take().unwrap());
        tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
        streams.stderr.take().unwrap().write_all(b"warning").await.unwrap();
        streams.error.write_all(&outcome.to_bytes()).await.unwrap();
        connection.close();
        connection.closed().await;
    });
    ours
}

async fn client_of(
    protocol: Option<&str>,
    backend: impl Fn() -> std::pin::Pin<Box<dyn Future<Output = Result<DuplexStream, String>> + Send>>
    + Send
    + Sync
    + Clone
    + 'static,
) -> WebSocketStream<TcpStream> {
    let stream = serve(move |client, headers| translate::serve(client, &headers, OPTIONS, backend()).unwrap()).await;
    connect(stream, protocol).await
}

/// What came on each channel until the server closed.
async fn channels(mut socket: WebSocketStream<TcpStream>) -> [String; 4] {
    let mut all: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            all[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
    }
    all.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn a_v5_client_closes_its_stdin_and_gets_everything() {
    let backend = || Box::pin(async { Ok(cat(Outcome::ExitCode(3))) }) as _;
    let mut socket = client_of(Some("v5.channel.k8s.io"), backend).await;
    let piece = [&[0u8][..], &[b'x'; 30_000]].concat();
    for _ in 0..20 {
        socket.send(Message::binary(piece.clone())).await.unwrap();
    }
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let [_, stdout, stderr, status] = channels(socket).await;
    assert_eq!((stdout.len(), stderr.as_str()), (600_000, "warning"));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    assert_eq!(status["reason"], "NonZeroExitCode");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told_on_the_error_channel() {
    for (protocol, expected) in [
        (Some("v4.channel.k8s.io"), "\"message\":\"Internal error occurred: no such container\""),
        (Some("channel.k8s.io"), "Internal error occurred: no such container"),
        (None, "Internal error occurred: no such container"),
    ] {
        let backend = || Box::pin(async { Err("no such container".to_owned()) }) as _;
        let [.., status] = channels(client_of(protocol, backend).await).await;
        assert!(status.contains(expected), "{protocol:?}: {status}");
        assert_eq!(status.starts_with('{'), protocol == Some("v4.channel.k8s.io"));
    }
}

#[tokio::test]
async fn a_server_lost_before_it_told_the_end_is_no_success() {
    let backend = || {
        Box::pin(async {
            let (ours, theirs) = duplex(4096);
            tokio::spawn(async move {
                let (_connection, mut incoming) = Connection::start(theirs, Side::Server);
                let mut streams = Streams::accept(&mut incoming, OPTIONS).await.unwrap();
                streams.stdout.take().unwrap().write_all(b"half").await.unwrap();
            });
            Ok(ours)
        }) as _
    };
    let [_, stdout, _, status] = channels(client_of(Some("v4.channel.k8s.io"), backend).await).await;
    assert_eq!(stdout, "half");
    assert!(status.contains("error reading from error stream: the connection is closed"), "{status}");
}

#[tokio::test]
async fn base64_clients_speak_text() {
    let backend = || Box::pin(async { Ok(cat(Outcome::Success)) }) as _;
    let mut socket = client_of(Some("v4.base64.channel.k8s.io"), backend).await;
    socket.send(Message::text("0aGVsbG8=")).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text.as_str() == "1aGVsbG8=" => return,
            Message::Text(text) => assert_eq!(text.as_str(), "1", "the sign that the command is being connected"),
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing came back");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_command() {
    let (left, was_left) = tokio::sync::oneshot::channel();
    let left = std::sync::Arc::new(std::sync::Mutex::new(Some(left)));
    let backend = move || {
        let left = left.clone();
        Box::pin(async move {
            let (ours, theirs) = duplex(4096);
            tokio::spawn(async move {
                let (connection, mut incoming) = Connection::start(theirs, Side::Server);
                let _streams = Streams::accept(&mut incoming, OPTIONS).await.unwrap();
                connection.closed().await;
                left.lock().unwrap().take().unwrap().send(()).unwrap();
            });
            Ok(ours)
        }) as _
    };
    let mut socket = client_of(Some("v5.channel.k8s.io"), backend).await;
    socket.next().await.unwrap().unwrap();
    drop(socket);
    was_left.await.unwrap();
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let (ours, mut server) = duplex(4096);
    let ours = std::sync::Mutex::new(Some(ours));
    let ours = std::sync::Arc::new(ours);
    let stream = serve(move |client, headers| {
        assert!(tunnel::is_offered(&headers));
        tunnel::serve(client, &headers, ours.lock().unwrap().take().unwrap()).unwrap()
    })
    .await;
    let mut socket = connect(stream, Some(tunnel::PROTOCOL)).await;
    socket.send(Message::binary(b"there".to_vec())).await.unwrap();
    let mut there = [0; 5];
    server.read_exact(&mut there).await.unwrap();
    server.write_all(b"back").await.unwrap();
    assert_eq!((&there, socket.next().await.unwrap().unwrap()), (b"there", Message::binary(b"back".to_vec())));
    drop(server);
    while let Some(Ok(message)) = socket.next().await {
        assert!(matches!(message, Message::Close(_)), "{message:?}");
    }
}
