//! Names outside of the cluster: passed on to the node's name servers, as they are.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const PATIENCE: Duration = Duration::from_secs(2);
const SERVFAIL: u8 = 2;

/// Asks the name servers of a `resolv.conf`, in order; the file is read again when it changed.
pub struct Forwarder {
    path: PathBuf,
    /// Our own address: asking ourselves would never end.
    own: SocketAddr,
    known: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
}

impl Forwarder {
    pub fn new(resolv_conf: &Path, own: SocketAddr) -> Forwarder {
        Forwarder { path: resolv_conf.to_owned(), own, known: Mutex::new((None, Vec::new())) }
    }

    /// The answer of the first server that gives one; otherwise that there is none.
    pub(super) async fn ask(&self, message: &[u8], over_tcp: bool) -> Vec<u8> {
        for server in self.servers() {
            let asked =
                async { if over_tcp { ask_tcp(server, message).await } else { ask_udp(server, message).await } };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => tracing::debug!(%error, %server, "name server fails"),
                Err(_) => tracing::debug!(%server, "name server does not answer"),
            }
        }
        failure(message)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let changed = std::fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.0 != changed || changed.is_none() {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            *known = (changed, parse(&text).into_iter().filter(|server| *server != self.own).collect());
        }
        known.1.clone()
    }
}

fn parse(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    servers.map(|address| SocketAddr::new(address, 53)).collect()
}

async fn ask_udp(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // A socket of its own for each question: the random port is half of what protects from forged answers.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; 65535];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 12 && answer[..2] == message[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The question back, as a failure of the server. The question was read before, so that it has a header.
fn failure(message: &[u8]) -> Vec<u8> {
    let mut answer = message.to_vec();
    if let [_, _, flags, code, ..] = answer.as_mut_slice() {
        *flags |= 0x80;
        *code = 0x80 | SERVFAIL;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let servers = parse("# a\nsearch x\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver  2001:db8::1 \n");
        assert_eq!(servers, ["10.0.0.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
    }
}
