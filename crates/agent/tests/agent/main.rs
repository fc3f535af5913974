//! The agent on a machine in memory: every order, failure and race that its ports allow. Nothing here needs
//! privileges, a kernel feature or the network.

#![allow(missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod exits;
mod images;
mod kube;
mod lifecycle;
mod networks;
mod pods;
mod pods_end;
mod recovery;
mod removal;
mod undo;
mod waiting;
