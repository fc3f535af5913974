//! Which traffic a pod may have: what network policies and security groups come to on a node.
//!
//! Neutral to the dialects: a pod without an entry is open; one with an entry is closed in the directions that the
//! entry names, but for what it allows. Answers belong to the connection and need no entry of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::PortProtocol;

/// The policies of a node's pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Policies {
    /// Addresses of the cluster that rules refer to by name (a selector's pods, a security group's members), so that
    /// one pod more is one element more, not a rule more.
    pub sets: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The restricted pods of this node, by address.
    pub pods: BTreeMap<IpAddr, PodPolicy>,
    /// Pods of this node (`metadata.uid`) that are to be restricted once their address is known: they start when they
    /// are among [`Policies::pods`], so that none is open for a moment.
    pub waiting: BTreeSet<String>,
}

/// What one pod may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodPolicy {
    /// Who may connect to it; `None` is everybody, an empty list nobody.
    pub ingress: Option<Vec<Allow>>,
    /// Where it may connect to; `None` is everywhere, an empty list nowhere.
    pub egress: Option<Vec<Allow>>,
}

/// One permission: any of the others, on any of the ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Allow {
    /// The other side; `None` is anybody, an empty list nobody.
    pub others: Option<Vec<Others>>,
    /// Ports of the side that is connected to; `None` is every port and protocol, unless `transports` names some.
    pub ports: Option<Vec<PortRange>>,
    /// Protocols without ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<Transport>,
}

/// A protocol over IP, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// Number, 1 for ICMP.
    pub number: u8,
    /// For ICMP: the type that is meant, all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// For ICMP: the code of that type, all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// Some of the possible other sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Others {
    /// The members of one of [`Policies::sets`].
    Set(String),
    /// A block of addresses, less some.
    #[serde(rename_all = "camelCase")]
    Block {
        /// The block.
        net: IpNet,
        /// What of it is not meant.
        #[serde(default)]
        except: Vec<IpNet>,
    },
}

/// Consecutive ports of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// Transport.
    pub protocol: PortProtocol,
    /// First port; 0 to 65535 is the whole protocol.
    pub from: u16,
    /// Last port.
    pub to: u16,
}
