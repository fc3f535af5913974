//! Security groups as the nodes enforce them: what each task's interface lets in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::aws::{GroupRule, SecurityGroup};
use tripod_model::network::PortProtocol;
use tripod_model::network::policy::{Allow, Others, PodPolicy, Policies, PortRange};
use tripod_model::object::Kind;

use super::state;
use crate::view::View;

/// What is enforced for the tasks on a node. The rules of a pod's groups add up; what no rule allows is refused.
pub fn policies(view: &View, node: &str) -> Policies {
    let mut out = Policies::default();
    let mut rules: BTreeMap<String, Option<Vec<GroupRule>>> = BTreeMap::new();
    let mut tasks: Vec<(IpAddr, Vec<String>)> = Vec::new();
    for pod in view.ecs().all_tasks() {
        let (Some(task), Some(address)) = (pod.ecs(), pod.status.pod_ip) else {
            continue;
        };
        let Some(interface) = &task.interface else {
            continue;
        };
        if state(pod).stopped_at.is_some() || pod.state.observed.is_final() {
            continue;
        }
        for group in &interface.groups {
            out.sets.entry(group.clone()).or_default().insert(address);
            rules
                .entry(group.clone())
                .or_insert_with(|| rules_of(view, group));
        }
        if pod.spec.node_name == node {
            tasks.push((address, interface.groups.clone()));
        }
    }
    // A rule may name a group that has no member now.
    let named: BTreeSet<String> = rules
        .values()
        .flatten()
        .flatten()
        .map(|r| r.group.clone())
        .filter(|g| !g.is_empty())
        .collect();
    for group in named {
        out.sets.entry(group).or_default();
    }
    for (address, groups) in tasks {
        let mut policy = PodPolicy {
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
        };
        for group in &groups {
            match rules.get(group) {
                Some(Some(list)) => {
                    for rule in list {
                        let side = if rule.egress {
                            &mut policy.egress
                        } else {
                            &mut policy.ingress
                        };
                        side.get_or_insert_default().extend(allow(rule));
                    }
                }
                // The default group until somebody changes it.
                _ => {
                    let members = Some(vec![Others::Set(group.clone())]);
                    policy.ingress.get_or_insert_default().push(Allow {
                        others: members,
                        ports: None,
                    });
                    policy.egress.get_or_insert_default().push(Allow::default());
                }
            }
        }
        out.pods.insert(address, policy);
    }
    out
}

/// The rules of a group; `None` when it is not written down.
fn rules_of(view: &View, group: &str) -> Option<Vec<GroupRule>> {
    let object = view.kube().get(SecurityGroup::RESOURCE, "", group)?;
    Some(object.get::<SecurityGroup>()?.spec.rules.clone())
}

fn allow(rule: &GroupRule) -> Option<Allow> {
    let others = if !rule.group.is_empty() {
        Others::Set(rule.group.clone())
    } else {
        let text = if rule.cidr.is_empty() {
            &rule.cidr6
        } else {
            &rule.cidr
        };
        let net: IpNet = text.parse().ok()?;
        Others::Block {
            net,
            except: Vec::new(),
        }
    };
    let protocol = match rule.protocol.as_str() {
        "-1" => None,
        "tcp" => Some(PortProtocol::Tcp),
        "udp" => Some(PortProtocol::Udp),
        // Nothing else is told apart.
        _ => return None,
    };
    let port = |n: i64| u16::try_from(n).unwrap_or(0);
    let ports = protocol.map(|protocol| {
        vec![PortRange {
            protocol,
            from: port(rule.from),
            to: if rule.to < 0 { u16::MAX } else { port(rule.to) },
        }]
    });
    Some(Allow {
        others: Some(vec![others]),
        ports,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tripod_model::ecs::{EcsInterface, EcsTask, EcsTaskState};
    use tripod_model::pod::Pod;

    use super::*;

    fn task(name: &str, address: &str, group: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.namespace = "ecs-1".into();
        pod.metadata.name = name.into();
        pod.status.pod_ip = Some(address.parse().unwrap());
        pod.state.ecs = Some(EcsTaskState::default());
        pod.extension.ecs = Some(EcsTask {
            interface: Some(EcsInterface {
                groups: vec![group.into()],
                ..EcsInterface::default()
            }),
            ..EcsTask::default()
        });
        Arc::new(pod)
    }

    #[test]
    fn the_default_group_admits_its_members_only() {
        let mut view = View::new();
        view.upsert_pod(task("a", "10.0.0.1", "sg-1"));
        view.upsert_pod(task("b", "10.0.0.2", "sg-1"));
        let p = policies(&view, "");
        assert_eq!(p.sets["sg-1"].len(), 2);
        let a = &p.pods[&"10.0.0.1".parse::<IpAddr>().unwrap()];
        assert_eq!(
            a.ingress.as_ref().unwrap()[0].others,
            Some(vec![Others::Set("sg-1".into())])
        );
        assert_eq!(a.egress.as_ref().unwrap()[0], Allow::default());
    }

    #[test]
    fn rules_become_permissions() {
        let rule = GroupRule {
            protocol: "tcp".into(),
            from: 80,
            to: 81,
            cidr: "10.0.0.0/8".into(),
            ..GroupRule::default()
        };
        let a = allow(&rule).unwrap();
        assert_eq!(
            a.ports.unwrap()[0],
            PortRange {
                protocol: PortProtocol::Tcp,
                from: 80,
                to: 81
            }
        );
        assert!(
            allow(&GroupRule {
                protocol: "icmp".into(),
                cidr: "0.0.0.0/0".into(),
                ..GroupRule::default()
            })
            .is_none()
        );
    }
}
