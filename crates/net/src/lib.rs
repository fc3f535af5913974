//! Networks of a node made real: bridges, routed overlays, published ports, frontends and names.
//!
//! [`KernelNet`] implements the agent's port `Net`. Pure *renderers* turn the network plan into routing messages
//! and nftables steps; thin code below `kernel` applies them by netlink. Nothing here spawns a program.

mod dns;
mod kernel;
pub mod local;
mod netlink;
mod ns;
pub mod outer;
mod render;

pub use kernel::{KernelNet, Options};

/// Where tasks of ECS ask for metadata and credentials, and the port of that address to which it is led: port 80 itself is
/// left to those who publish it on all addresses.
pub const TASK_ENDPOINT: (std::net::Ipv4Addr, u16, u16) =
    (std::net::Ipv4Addr::new(169, 254, 170, 2), 80, 51679);

/// Has this machine answer at an address of its own loopback device, until it is told otherwise.
///
/// # Errors
/// When the kernel refuses it.
pub fn answer_at(address: std::net::IpAddr) -> std::io::Result<()> {
    /// The index of `lo` in every network namespace.
    const LOOPBACK: u32 = 1;
    let socket = netlink::route::open()?;
    let message = netlink::route::add_address(LOOPBACK, ipnet::IpNet::from(address), 0);
    socket
        .apply(vec![message])
        .map_err(|refused| std::io::Error::other(format!("{address} on lo: {refused:?}")))
}
pub use local::LocalNet;
