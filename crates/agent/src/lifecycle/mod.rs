//! A container's life: starting, ending, stopping, pausing, and taking over what ran before the daemon did.

mod exit;
mod recover;
mod start;
mod stop;

pub use stop::StopOptions;
