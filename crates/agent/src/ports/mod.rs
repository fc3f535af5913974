//! The narrow ports through which the agent touches the machine. `runtime` and `net` implement them; tests of
//! the agent use doubles in memory. Nothing here names a syscall.

mod images;
mod net;
mod runtime;
mod volumes;

pub use images::*;
pub use net::*;
pub use runtime::*;
pub use volumes::*;

/// A boxed stream of items that borrows nothing.
pub type BoxStream<T> = futures::stream::BoxStream<'static, T>;
/// A boxed reader of bytes.
pub type BoxRead = Box<dyn tokio::io::AsyncRead + Send + Unpin>;
/// `NetworkAttachment::mode` of a container that joins a pod's sandbox begins with this; the sandbox's name follows.
pub const SANDBOX_MODE: &str = "sandbox:";

/// A stream of bytes in both directions.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}
/// A boxed stream of bytes in both directions.
pub type BoxDuplex = Box<dyn Duplex>;
/// A boxed writer of bytes.
pub type BoxWrite = Box<dyn tokio::io::AsyncWrite + Send + Unpin>;
