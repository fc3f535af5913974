//! Names. For sandboxes: a server at 127.0.0.11 in each, which answers for the networks the sandbox is in and
//! forwards the rest. For pods: one server at an address of the node, which answers for the cluster's services.
//!
//! The sockets are opened inside the sandbox and served by the daemon. They are bound to ports of the kernel's
//! choice, so that port 53 stays free for the sandbox's own processes; two stateless rules in the sandbox's
//! namespace rewrite the port of queries and answers, without connection tracking.

mod answer;
mod cluster;
mod forward;
mod server;
mod sockets;
mod zones;

pub(crate) use server::Server;
pub(crate) use sockets::Sockets;
