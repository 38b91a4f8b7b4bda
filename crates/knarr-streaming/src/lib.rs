//! Streams inside an HTTP connection: what `kubectl exec`, `attach`, `cp` and `port-forward` travel on.
//!
//! * [`spdy`]: SPDY/3.1 framing and connections, both ends, as Kubernetes uses them: many byte streams over one upgraded connection.
//! * [`remote_command`]: the protocols `v1` to `v5.channel.k8s.io`: which streams a command has, and how it reports its end.
//! * [`websocket`]: the WebSocket forms of the same (a channel number before each message).
//! * [`translate`]: a WebSocket client served by a SPDY server, as the API server does for exec and attach.
//! * [`tunnel`]: port-forward's SPDY inside WebSocket, unwrapped.
//! * [`reader`]: a body as the messages of a WebSocket: logs.
//! * [`upgrade`]: an upgraded connection passed on unchanged to another server.
//!
//! The way through: a request with `Connection: Upgrade` comes in over HTTP/1.1; [`upgrade::proxy`] asks the same of the next server
//! and copies bytes, or [`websocket::accept`] ends the WebSocket here and [`translate`] speaks SPDY to the next server.
//!
//! Invariants: nothing here knows Kubernetes objects; a peer's bytes never make it panic nor grow memory without bound (a stream that
//! is not read holds back its connection, as it does upstream); half-closing one direction of a stream leaves the other open.

pub mod reader;
pub mod remote_command;
pub mod spdy;
pub mod translate;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;
