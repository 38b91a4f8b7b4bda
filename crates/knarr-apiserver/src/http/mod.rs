//! What travels over HTTP: bodies, media types, answers.

pub mod body;
pub mod coalesce;
pub mod compress;
pub mod large;
pub mod negotiate;
pub mod pretty;
pub mod respond;

pub use body::Body;

/// The address of the other end of the connection; put into the request's extensions by the acceptor.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub std::net::SocketAddr);
