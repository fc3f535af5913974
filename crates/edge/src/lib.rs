//! Listeners for every front door: unix sockets, TCP and TLS, HTTP/1.1 with upgrades (and HTTP/2 by ALPN), with
//! limits on headers and on the time a client may take, and an orderly end.
//!
//! Nothing here knows what is served: a front door is a [`Handler`].

mod activity;
mod address;
mod linger;
mod listen;
mod serve;
mod tls;
mod unverified;

pub use activity::quiet_after_use;
pub use address::Address;
pub use linger::Linger;
pub use listen::Listener;
pub use serve::{Handler, Options, serve};
pub use tls::{TlsFiles, TlsPem, server_config, server_config_of};
pub use unverified::connect_unverified;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

/// An error of a body while it is sent or read.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// A request as it comes in.
pub type Request = http::Request<hyper::body::Incoming>;
/// A response as it goes out.
pub type Response = http::Response<Body>;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Address, for TCP.
    pub address: Option<std::net::SocketAddr>,
    /// User of the process, for unix sockets.
    pub uid: Option<u32>,
    /// The client's certificate (DER), verified against the authority of the listener.
    pub certificate: Option<Vec<u8>>,
    /// The connection is encrypted.
    pub tls: bool,
}

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|e| match e {})
        .boxed_unsync()
}

/// A body without bytes.
pub fn empty() -> Body {
    http_body_util::Empty::new()
        .map_err(|e| match e {})
        .boxed_unsync()
}
