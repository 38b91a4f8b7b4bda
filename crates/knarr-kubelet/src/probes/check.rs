//! One look at a container: run a command, ask over HTTP, open a connection, ask gRPC health.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use knarr_cri::Runtime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls;
use crate::pod::DesiredContainer;

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The container answered, and said no.
    Failure(String),
    /// It could not be asked.
    Error(String),
}

/// Longest answer that is read or shown.
const BODY_LIMIT: usize = 10 * 1024;
const SHOWN_LIMIT: usize = 1024;

/// Runs a command in the container.
pub async fn exec(runtime: &dyn Runtime, id: &str, action: &ExecAction, timeout: Duration) -> Outcome {
    let command = action.command.clone().unwrap_or_default();
    match runtime.exec_sync(id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let output = [answer.stdout, answer.stderr].concat();
            Outcome::Failure(shortened(&String::from_utf8_lossy(&output)))
        }
        Err(error) if error.is_timeout() => Outcome::Failure(format!("command timed out: {error}")),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

/// Opens a connection.
pub async fn tcp(action: &TCPSocketAction, container: &DesiredContainer, pod_ip: &str, timeout: Duration) -> Outcome {
    let Some(port) = port_number(&action.port, container) else { return Outcome::Error(no_port(&action.port)) };
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    match connect(host, port, timeout).await {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(error),
    }
}

/// Asks over HTTP or HTTPS; certificates are not verified, since they are the pod's own affair.
pub async fn http(action: &HTTPGetAction, container: &DesiredContainer, pod_ip: &str, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, http_get(action, container, pod_ip, timeout)).await {
        Ok(Ok((status, _))) if (200..400).contains(&status.as_u16()) => Outcome::Success,
        Ok(Ok((status, _))) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        Ok(Err(error)) => Outcome::Failure(error),
        Err(_) => Outcome::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url_of(action, container, pod_ip)
        )),
    }
}

/// The answer to a `GET`, and the start of its body.
pub async fn http_get(
    action: &HTTPGetAction,
    container: &DesiredContainer,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(StatusCode, String), String> {
    let port = port_number(&action.port, container).ok_or_else(|| no_port(&action.port))?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let url = url_of(action, container, pod_ip);
    let failed = |error: String| format!("Get \"{url}\": {error}");
    let stream = connect(host, port, timeout).await.map_err(failed)?;
    let request = request_for(action, host, port)?;
    let answer = if is_https(action) {
        let stream = tls::connect(stream, host).await.map_err(|error| failed(error.to_string()))?;
        send(stream, request).await
    } else {
        send(stream, request).await
    };
    answer.map_err(failed)
}

fn is_https(action: &HTTPGetAction) -> bool {
    action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

fn path_of(action: &HTTPGetAction) -> String {
    let path = action.path.as_deref().unwrap_or("/");
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn url_of(action: &HTTPGetAction, container: &DesiredContainer, pod_ip: &str) -> String {
    let scheme = if is_https(action) { "https" } else { "http" };
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let port = port_number(&action.port, container).unwrap_or_default();
    format!("{scheme}://{}{}", authority(host, port), path_of(action))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn request_for(action: &HTTPGetAction, host: &str, port: u16) -> Result<Request<Full<Bytes>>, String> {
    let mut headers = HeaderMap::new();
    headers
        .insert(http::header::HOST, HeaderValue::from_str(&authority(host, port)).map_err(|error| error.to_string())?);
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for header in action.http_headers.iter().flatten() {
        let name: HeaderName = header.name.parse().map_err(|_| format!("invalid header {:?}", header.name))?;
        let value =
            HeaderValue::from_str(&header.value).map_err(|_| format!("invalid value of header {:?}", header.name))?;
        headers.insert(name, value);
    }
    let mut request = Request::get(path_of(action)).body(Full::default()).map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), BODY_LIMIT).collect().await;
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok((status, body))
    };
    drive(connection, answer).await.map_err(text)
}

/// Drives a connection beside the answer that comes by it, and ends with that. However the connection ended, the answer knows whether
/// it came: a server that breaks off once it has said all has answered.
async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = hyper::Result<T>>,
) -> hyper::Result<T> {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match (answer.await, ended) {
            // Why the connection ended says more than that the request was given up with it.
            (Err(given_up), Err(why)) if given_up.is_canceled() => Err(why),
            (answer, _) => answer,
        },
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let target = authority(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {target}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial tcp {target}: {error}")),
        Err(_) => Err(format!("dial tcp {target}: i/o timeout")),
    }
}

/// The number of a port that may be named in the container.
fn port_number(port: &IntOrString, container: &DesiredContainer) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.spec.ports.iter().flatten();
            let named = ports.filter(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port).next();
            named.or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

fn no_port(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port with name {name}"),
    }
}

/// Asks `grpc.health.v1.Health/Check`.
pub async fn grpc(action: &GRPCAction, pod_ip: &str, timeout: Duration) -> Outcome {
    let Ok(port) = u16::try_from(action.port) else {
        return Outcome::Error(format!("invalid port number: {}", action.port));
    };
    let service = action.service.clone().unwrap_or_default();
    let seconds = timeout.as_secs();
    let Ok(stream) = connect(pod_ip, port, timeout).await else {
        // Upstream tries again until the time is up, and then says no more than that.
        let target = authority(pod_ip, port);
        let message =
            format!("timeout: failed to connect service \"{target}\" within {seconds}s: context deadline exceeded");
        return Outcome::Failure(message);
    };
    match tokio::time::timeout(timeout, grpc_health(stream, &authority(pod_ip, port), &service)).await {
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(other)) => Outcome::Failure(format!("service unhealthy (responded with \"{}\")", health_name(other))),
        Ok(Err(error)) => Outcome::Failure(error),
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {seconds}s")),
    }
}

const SERVING: u64 = 1;
const UNIMPLEMENTED: usize = 12;

/// The codes of gRPC, as Go names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn health_name(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

async fn grpc_health(stream: TcpStream, authority: &str, service: &str) -> Result<u64, String> {
    let text = |error: hyper::Error| rpc_error("Unavailable", &error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(health_request(service)))
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let in_headers = answer.headers().clone();
        Ok((in_headers, http_body_util::Limited::new(answer.into_body(), BODY_LIMIT).collect().await))
    };
    let (in_headers, body) = drive(connection, answer).await.map_err(text)?;
    let body = body.map_err(|error| error.to_string())?;
    grpc_status(body.trailers().unwrap_or(&in_headers))?;
    Ok(health_status(&body.to_bytes()))
}

fn rpc_error(code: &str, message: &str) -> String {
    format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}")
}

fn grpc_status(trailers: &HeaderMap) -> Result<(), String> {
    let value = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let code: usize = value("grpc-status").parse().unwrap_or(0);
    let message = value("grpc-message").replace("%20", " ");
    match code {
        0 => Ok(()),
        UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        code => Err(rpc_error(CODES.get(code).unwrap_or(&"Unknown"), &message)),
    }
}

/// `HealthCheckRequest { service }` in a gRPC frame: uncompressed, its length, field 1 as bytes.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// Field 1 of a `HealthCheckResponse` in a gRPC frame; absent is zero, as in all of protobuf.
fn health_status(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(SHOWN_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
