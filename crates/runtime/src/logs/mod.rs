//! Log files of containers: written by the keeper, read by the daemon.

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod split;
pub(crate) mod writer;
