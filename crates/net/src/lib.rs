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
pub use local::LocalNet;
