//! Exec, attach, port-forward and run: the runtime gives a URL, and the client's upgraded connection is joined with it.

use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use knarr_cri::v1::{AttachRequest, ContainerState, ExecRequest};
use knarr_streaming::upgrade::{self, Answer};
use tokio::net::TcpStream;

use super::Server;
use super::respond::{Body, Failure, parameters, text, whole};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The container a path names: `NAMESPACE/POD/[UID/]CONTAINER`.
pub(super) struct Target<'a> {
    namespace: &'a str,
    pod: &'a str,
    uid: Option<&'a str>,
    container: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn parse(segments: &[&'a str]) -> Result<Target<'a>, Failure> {
        match *segments {
            [namespace, pod, container] => Ok(Target { namespace, pod, uid: None, container }),
            [namespace, pod, uid, container] => Ok(Target { namespace, pod, uid: Some(uid), container }),
            _ => Err(Failure::not_found("404 page not found\n")),
        }
    }
}

/// Which streams the client wants and what to run.
#[derive(Debug, Default, PartialEq)]
struct StreamOptions {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    command: Vec<String>,
    ports: Vec<i32>,
}

impl StreamOptions {
    fn parse(query: Option<&str>) -> StreamOptions {
        let mut options = StreamOptions::default();
        for (name, value) in parameters(query) {
            let set = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "input" => options.stdin = set,
                "output" => options.stdout = set,
                "error" => options.stderr = set,
                "tty" => options.tty = set,
                "command" => options.command.push(value),
                "port" => options.ports.extend(value.split(',').filter_map(|port| port.parse::<i32>().ok())),
                _ => {}
            }
        }
        // A terminal has one output; upstream drops stderr here rather than failing.
        options.stderr &= !options.tty;
        options
    }

    fn demand_streams(self) -> Result<StreamOptions, Failure> {
        if self.stdin || self.stdout || self.stderr {
            return Ok(self);
        }
        Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"))
    }
}

pub(super) async fn exec(
    server: &Server,
    target: Target<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let options = StreamOptions::parse(request.uri().query()).demand_streams()?;
    let id = running_container(server, &target).await?;
    let exec = ExecRequest {
        container_id: id,
        cmd: options.command,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let url = server.view.runtime().exec(exec).await.map_err(Failure::internal)?;
    join(server, request, &url).await
}

pub(super) async fn attach(
    server: &Server,
    target: Target<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let options = StreamOptions::parse(request.uri().query()).demand_streams()?;
    let id = running_container(server, &target).await?;
    // The terminal is the container's own, whatever the client asks.
    let tty = has_terminal(server, &target);
    let attach = AttachRequest {
        container_id: id,
        stdin: options.stdin,
        tty,
        stdout: options.stdout,
        stderr: options.stderr && !tty,
    };
    let url = server.view.runtime().attach(attach).await.map_err(Failure::internal)?;
    join(server, request, &url).await
}

pub(super) async fn port_forward(
    server: &Server,
    namespace: &str,
    pod: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let options = StreamOptions::parse(request.uri().query());
    server.view.pod(namespace, pod).ok_or_else(|| Failure::not_found("pod does not exist"))?;
    let sandbox = server.view.sandbox(namespace, pod).await.map_err(Failure::internal)?;
    let sandbox =
        sandbox.ok_or_else(|| Failure::internal(format!("failed to find sandbox for pod \"{pod}_{namespace}\"")))?;
    let url = server.view.runtime().port_forward(&sandbox, options.ports).await.map_err(Failure::internal)?;
    join(server, request, &url).await
}

/// Runs a command and answers with its whole output.
pub(super) async fn run(server: &Server, target: Target<'_>, query: Option<&str>) -> Result<Response<Body>, Failure> {
    let id = running_container(server, &target).await?;
    let command = parameters(query).into_iter().find(|(name, _)| name == "cmd").map(|(_, value)| value);
    let command = command.unwrap_or_default().split(' ').map(str::to_owned).collect();
    let done = server.view.runtime().exec_sync(&id, command, Duration::ZERO).await.map_err(Failure::internal)?;
    let mut output = done.stdout.to_vec();
    output.extend_from_slice(&done.stderr);
    match done.exit_code {
        0 => Ok(text(StatusCode::OK, output)),
        code => Err(Failure::internal(format!(
            "command terminated with exit code {code}: {}",
            String::from_utf8_lossy(&output)
        ))),
    }
}

async fn running_container(server: &Server, target: &Target<'_>) -> Result<String, Failure> {
    let pod = server.view.pod(target.namespace, target.pod);
    let wrong_uid = |uid: &str| pod.as_ref().is_some_and(|pod| pod.metadata.uid.as_deref() != Some(uid));
    if pod.is_none() || target.uid.is_some_and(wrong_uid) {
        return Err(Failure::not_found("pod does not exist"));
    }
    let containers = server.view.containers(target.namespace, target.pod, target.container).await;
    let newest = containers.map_err(Failure::internal)?.into_iter().next();
    newest
        .filter(|container| container.state == ContainerState::ContainerRunning)
        .map(|container| container.id)
        .ok_or_else(|| Failure::internal(format!("container not found (\"{}\")", target.container)))
}

fn has_terminal(server: &Server, target: &Target<'_>) -> bool {
    let Some(pod) = server.view.pod(target.namespace, target.pod) else { return false };
    let Some(spec) = &pod.spec else { return false };
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| (&c.name, c.tty));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.name, c.tty));
    plain.chain(ephemeral).any(|(name, tty)| name == target.container && tty == Some(true))
}

/// Asks the runtime's streaming server what the client asked of us, and joins the two connections.
async fn join(server: &Server, mut request: Request<Incoming>, url: &str) -> Result<Response<Body>, Failure> {
    if !upgrade::is_upgrade(request.headers()) {
        return Err(Failure::bad_request("unable to upgrade: missing upgrade headers in request"));
    }
    let client = hyper::upgrade::on(&mut request);
    let url: Uri = url.parse().map_err(Failure::internal)?;
    let authority = url.authority().ok_or_else(|| Failure::internal("the runtime's streaming URL has no host"))?;
    let connecting = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)));
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(Failure::internal)?;
    let connection = connection.map_err(Failure::internal)?;
    let _ = connection.set_nodelay(true);
    match upgrade::request(connection, onward(&request, &url)).await.map_err(Failure::internal)? {
        Answer::Switched(head, runtime) => {
            let session = upgrade::splice(client, head, runtime);
            server.sessions.spawn(session.run);
            Ok(session.response.map(|()| whole(bytes::Bytes::new())))
        }
        Answer::Refused(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
    }
}

/// The client's request, addressed to the runtime. Its credentials are for us alone.
fn onward(request: &Request<Incoming>, url: &Uri) -> Request<Empty<bytes::Bytes>> {
    let mut onward = Request::new(Empty::new());
    *onward.method_mut() = if *request.method() == Method::GET { Method::GET } else { Method::POST };
    *onward.uri_mut() = url.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    *onward.headers_mut() = request.headers().clone();
    onward.headers_mut().remove(http::header::AUTHORIZATION);
    onward.headers_mut().remove(http::header::CONTENT_LENGTH);
    onward.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(host) = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        onward.headers_mut().insert(HOST, host);
    }
    onward
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_as_upstream_reads_them() {
        let options =
            StreamOptions::parse(Some("input=1&output=true&error=1&tty=1&command=sh&command=-c&command=a%20b"));
        assert!(options.stdin && options.stdout && options.tty && !options.stderr);
        assert_eq!(options.command, ["sh", "-c", "a b"]);
        assert!(StreamOptions::parse(Some("tty=1")).demand_streams().is_err());
    }
}
