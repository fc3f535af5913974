//! Security groups as the nodes enforce them: what each task's interface lets in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::aws::{GroupRule, SecurityGroup, VpcPart};
use tripod_model::network::PortProtocol;
use tripod_model::network::policy::{Allow, Others, PodPolicy, Policies, PortRange, Transport};
use tripod_model::object::Kind;

use super::state;
use crate::view::View;

/// What is enforced for the tasks on a node. The rules of a pod's groups add up; what no rule allows is refused.
pub fn policies(view: &View, node: &str) -> Policies {
    let mut out = Policies::default();
    let mut rules: BTreeMap<String, Option<Vec<GroupRule>>> = BTreeMap::new();
    let mut tasks: Vec<(IpAddr, Vec<String>)> = Vec::new();
    let subnets = subnets(view);
    for subnet in subnets.keys() {
        out.sets.entry(subnet.clone()).or_default();
    }
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
        if subnets.contains_key(&interface.subnet) {
            out.sets
                .entry(interface.subnet.clone())
                .or_default()
                .insert(address);
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
                        side.get_or_insert_default().extend(allow(rule, &subnets));
                    }
                }
                // The default group until somebody changes it.
                _ => {
                    let members = Some(vec![Others::Set(group.clone())]);
                    policy.ingress.get_or_insert_default().push(Allow {
                        others: members,
                        ports: None,
                        ..Allow::default()
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

/// Blocks of the subnets that users made. Their tasks have addresses of the pod network.
fn subnets(view: &View) -> BTreeMap<String, IpNet> {
    let parts = view
        .kube()
        .all(VpcPart::RESOURCE)
        .filter_map(|o| o.get::<VpcPart>());
    let subnets = parts.filter(|p| p.spec.kind == "subnet");
    subnets
        .filter_map(|p| {
            let content = &p.spec.content;
            let made = content.get("DefaultForAz").and_then(serde_json::Value::as_bool) != Some(true);
            let net = content.get("CidrBlock")?.as_str()?.parse().ok()?;
            made.then(|| (p.metadata.name.clone(), net))
        })
        .collect()
}

fn allow(rule: &GroupRule, subnets: &BTreeMap<String, IpNet>) -> Option<Allow> {
    let mut others = Vec::new();
    if !rule.group.is_empty() {
        others.push(Others::Set(rule.group.clone()));
    } else {
        let text = if rule.cidr.is_empty() {
            &rule.cidr6
        } else {
            &rule.cidr
        };
        let net: IpNet = text.parse().ok()?;
        let within = subnets.iter().filter(|(_, subnet)| net.contains(*subnet));
        others.extend(within.map(|(id, _)| Others::Set(id.clone())));
        others.push(Others::Block {
            net,
            except: Vec::new(),
        });
    }
    let (ports, transports) = what(rule)?;
    Some(Allow {
        others: Some(others),
        ports,
        transports,
    })
}

/// The ports or protocols that a rule is about; `None` when it is about none that there are.
fn what(rule: &GroupRule) -> Option<(Option<Vec<PortRange>>, Vec<Transport>)> {
    let ranged = |protocol| {
        let port = |n: i64| u16::try_from(n).unwrap_or(0);
        let to = if rule.to < 0 { u16::MAX } else { port(rule.to) };
        let range = PortRange {
            protocol,
            from: port(rule.from),
            to,
        };
        Some((Some(vec![range]), Vec::new()))
    };
    // A number below zero stands for all.
    let given = |n: i64| u8::try_from(n).ok();
    let number = match rule.protocol.as_str() {
        "-1" => return Some((None, Vec::new())),
        "tcp" => return ranged(PortProtocol::Tcp),
        "udp" => return ranged(PortProtocol::Udp),
        "icmp" => 1,
        // There is no IPv6 yet.
        "icmpv6" => return None,
        number => number.parse().ok()?,
    };
    let (kind, code) = if number == 1 {
        (given(rule.from), given(rule.to))
    } else {
        (None, None)
    };
    Some((None, vec![Transport { number, kind, code }]))
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
        let a = allow(&rule, &BTreeMap::new()).unwrap();
        assert_eq!(
            a.ports.unwrap()[0],
            PortRange {
                protocol: PortProtocol::Tcp,
                from: 80,
                to: 81
            }
        );
        let others = BTreeMap::from([("subnet-1".to_owned(), "10.9.0.0/24".parse().unwrap())]);
        assert_eq!(
            allow(&rule, &others).unwrap().others.unwrap()[0],
            Others::Set("subnet-1".into())
        );
        let icmp = |from, to| {
            let rule = GroupRule {
                protocol: "icmp".into(),
                cidr: "0.0.0.0/0".into(),
                from,
                to,
                ..GroupRule::default()
            };
            allow(&rule, &BTreeMap::new()).unwrap().transports[0]
        };
        let of = |kind, code| Transport {
            number: 1,
            kind,
            code,
        };
        assert_eq!(icmp(-1, -1), of(None, None));
        assert_eq!(icmp(8, -1), of(Some(8), None));
        assert_eq!(icmp(3, 4), of(Some(3), Some(4)));
        let sctp = GroupRule {
            protocol: "132".into(),
            cidr: "0.0.0.0/0".into(),
            ..GroupRule::default()
        };
        assert_eq!(allow(&sctp, &BTreeMap::new()).unwrap().transports[0].number, 132);
    }
}
