//! Blocks of pod addresses: each node has one, for as long as it is a member.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::Value;
use tripod_model::node::Node;

use super::Ranges;
use crate::view::View;
use crate::write::{Explanation, Object, Plan, Write};

/// Prefix length of a node's block, where the range of pods has room for several of them.
const BLOCK: u8 = 24;

/// The block of a node (`spec.podCIDR`).
pub fn block_of(node: &Node) -> Option<Ipv4Net> {
    node.spec.rest.get("podCIDR")?.as_str()?.parse().ok()
}

/// Gives blocks to nodes that have none. A node that gets none because the range is used up is explained.
pub fn assign_blocks(view: &View) -> Plan {
    let mut plan = Plan::default();
    let lacking: Vec<&Arc<Node>> = view
        .nodes()
        .filter(|n| block_of(n).is_none() && !n.is_foreign())
        .collect();
    if lacking.is_empty() {
        return plan;
    }
    let range = Ranges::of(view).pods;
    let taken: BTreeSet<Ipv4Net> = view.nodes().filter_map(|n| block_of(n)).collect();
    let free = |b: &Ipv4Net| !taken.iter().any(|t| t.contains(b) || b.contains(t));
    let size = BLOCK.max(range.prefix_len());
    let mut blocks = range.subnets(size).into_iter().flatten().filter(free);
    for node in lacking {
        let Some(block) = blocks.next() else {
            plan.explanations.push(Explanation {
                resource: "nodes",
                namespace: String::new(),
                name: node.metadata.name.clone(),
                reason: "CIDRNotAvailable",
                message: format!("no block of addresses is left in {range} for the node's pods"),
            });
            continue;
        };
        let based_on = node.metadata.revision();
        let mut node = Node::clone(node);
        let text = block.to_string();
        node.spec.rest.insert("podCIDR".into(), text.as_str().into());
        node.spec
            .rest
            .insert("podCIDRs".into(), Value::Array(vec![text.into()]));
        plan.writes.push(Write::Update {
            object: Object::Node(Arc::new(node)),
            based_on,
        });
    }
    plan
}
