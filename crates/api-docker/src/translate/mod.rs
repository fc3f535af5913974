//! Between the words of the Engine API and the neutral ones of the model: pure functions.

pub(crate) mod check;
pub(crate) mod create;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod show;
pub(crate) mod summary;
pub(crate) mod update;
