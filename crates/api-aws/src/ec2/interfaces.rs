//! Network interfaces: views of the tasks that have one.

use serde_json::{Value, json};
use tripod_model::pod::Pod;

use super::filter::{filtered, named, paged};
use super::{groups, network, vpc_of_subnet, zone_of_subnet};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of, tag_list};

/// The private name of an address.
pub(crate) fn private_dns_name(region: &str, address: &str) -> String {
    format!("ip-{}.{}", address.replace('.', "-"), network::domain(region))
}

/// The interface of a task, with the public address of its node.
fn shown(call: &Call, pod: &Pod, public: Option<&str>, names: &[(String, String)]) -> Option<Value> {
    let task = pod.ecs()?;
    let interface = task.interface.as_ref()?;
    let address = pod.status.pod_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let dns = private_dns_name(&task.region, &address);
    let groups: Value = interface
        .groups
        .iter()
        .map(|id| {
            let name = names
                .iter()
                .find(|(known, _)| known == id)
                .map_or("", |(_, name)| name);
            json!({ "GroupId": id, "GroupName": name })
        })
        .collect();
    let association = public
        .filter(|_| interface.public)
        .map(|ip| json!({ "PublicIp": ip, "IpOwnerId": "amazon", "PublicDnsName": "" }));
    let attached = format!("eni-attach-{}", interface.id.trim_start_matches("eni-"));
    Some(json!({
        "NetworkInterfaceId": interface.id, "SubnetId": interface.subnet, "VpcId": vpc_of_subnet(&call.state(), &task.region, &interface.subnet),
        "AvailabilityZone": zone_of_subnet(&call.state(), &task.region, &interface.subnet), "InterfaceType": "interface",
        "Description": call.arn("ecs", &format!("attachment/{}", interface.attachment)), "OwnerId": call.account(),
        "RequesterId": "578734482556", "RequesterManaged": true, "SourceDestCheck": true, "Ipv6Addresses": [],
        "MacAddress": interface.mac, "Status": "in-use", "Groups": groups, "Association": association,
        "PrivateIpAddress": address, "PrivateDnsName": dns,
        "PrivateIpAddresses": [{
            "Primary": true, "PrivateIpAddress": address, "PrivateDnsName": dns, "Association": association,
        }],
        "Attachment": {
            "AttachmentId": attached, "DeviceIndex": 1, "Status": "attached", "DeleteOnTermination": false,
            "InstanceOwnerId": "amazon-ecs", "AttachTime": epoch_of(pod.metadata.creation_timestamp),
        },
        "TagSet": tag_list(&Default::default(), "Key", "Value"),
    }))
}

pub(super) async fn describe(call: Call, input: Value) -> Reply {
    call.manager.caught_up().await;
    let names: Vec<(String, String)> = groups::all(&call)?
        .into_iter()
        .map(|g| (g.metadata.name, g.spec.name))
        .collect();
    let mut items: Vec<Value> = call.manager.with_view(|view| {
        let live = view.pods().filter(|p| !p.state.observed.is_final());
        let of_region = live.filter(|p| p.ecs().is_some_and(|t| t.region == call.region));
        let stopped = |p: &Pod| p.state.ecs.as_ref().is_some_and(|s| s.stopped_at.is_some());
        of_region
            .filter(|p| !stopped(p))
            .filter_map(|p| {
                let public = view.node(&p.spec.node_name).map(|n| n.status.addr.as_str());
                shown(&call, p, public, &names)
            })
            .collect()
    });
    items.sort_by(|a, b| a.text("NetworkInterfaceId").cmp(b.text("NetworkInterfaceId")));
    let wanted = input.texts("NetworkInterfaceIds");
    if let Some(bad) = wanted.iter().find(|id| !id.starts_with("eni-")) {
        let text = format!("Invalid id: \"{bad}\" (expecting \"eni-...\")");
        return Err(Fault::new("InvalidNetworkInterfaceId.Malformed", text));
    }
    let code = "InvalidNetworkInterfaceID.NotFound";
    let items = named(items, &wanted, "NetworkInterfaceId", code, "networkInterface ID")?;
    let known = [
        ("network-interface-id", "NetworkInterfaceId"),
        ("subnet-id", "SubnetId"),
        ("vpc-id", "VpcId"),
        ("group-id", "Groups.GroupId"),
        ("group-name", "Groups.GroupName"),
        ("status", "Status"),
        ("private-ip-address", "PrivateIpAddress"),
        ("addresses.private-ip-address", "PrivateIpAddress"),
        ("mac-address", "MacAddress"),
        ("description", "Description"),
        ("availability-zone", "AvailabilityZone"),
        ("association.public-ip", "Association.PublicIp"),
        ("attachment.status", "Attachment.Status"),
        ("interface-type", "InterfaceType"),
        ("requester-managed", "RequesterManaged"),
        ("owner-id", "OwnerId"),
        ("attachment.instance-id", "Attachment.InstanceId"),
        ("requester-id", "RequesterId"),
    ];
    paged(&input, "NetworkInterfaces", filtered(items, &input, &known)?)
}
