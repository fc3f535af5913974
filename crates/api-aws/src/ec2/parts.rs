//! Parts of the network in the store: what users made, and what they changed of what is there by itself.
//!
//! A part is kept as the API tells it. The default VPC and its parts are not in the store until they are changed.

use serde_json::{Value, json};
use tripod_engine::aws::{hex_id, uid};
use tripod_model::aws::{ResourceTags, VpcPart, VpcPartSpec};

use super::{network, tags};
use crate::call::Call;
use crate::fault::Fault;
use crate::value::{Get as _, tag_list, tags_of};

/// A kind of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    /// Resource type of its tags.
    pub(super) kind: &'static str,
    /// What its identifiers begin with.
    prefix: &'static str,
    /// Member with its identifier.
    pub(super) member: &'static str,
    /// Code of the refusal of one that is not there.
    code: &'static str,
    /// What that refusal calls it.
    what: &'static str,
}

macro_rules! sorts {
    ($($name:ident $kind:literal $prefix:literal $member:literal $code:literal $what:literal;)*) => {
        $(pub(super) const $name: Sort =
            Sort { kind: $kind, prefix: $prefix, member: $member, code: $code, what: $what };)*
    };
}

sorts! {
    VPC "vpc" "vpc" "VpcId" "InvalidVpcID.NotFound" "vpc ID";
    SUBNET "subnet" "subnet" "SubnetId" "InvalidSubnetID.NotFound" "subnet ID";
    TABLE "route-table" "rtb" "RouteTableId" "InvalidRouteTableID.NotFound" "routeTable ID";
    GATEWAY "internet-gateway" "igw" "InternetGatewayId" "InvalidInternetGatewayID.NotFound" "internetGateway ID";
    NAT "natgateway" "nat" "NatGatewayId" "NatGatewayNotFound" "NAT gateway";
    ADDRESS "elastic-ip" "eipalloc" "AllocationId" "InvalidAllocationID.NotFound" "allocation ID";
    ACL "network-acl" "acl" "NetworkAclId" "InvalidNetworkAclID.NotFound" "networkAcl ID";
}

impl Sort {
    pub(super) fn missing(&self, id: &str) -> Fault {
        Fault::new(self.code, format!("The {} '{id}' does not exist", self.what))
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn what(&self) -> &'static str {
        self.what
    }
}

/// The parts of a kind in the caller's region, those that are there by themselves first.
pub(super) fn all(call: &Call, sort: Sort) -> Result<Vec<Value>, Fault> {
    let state = call.state();
    let mut stored: Vec<Value> = Vec::new();
    let mut parts = state.list::<VpcPart>(None)?;
    parts.retain(|p| p.spec.region == call.region && p.spec.kind == sort.kind);
    parts.sort_by_key(|p| p.metadata.creation_timestamp);
    stored.extend(parts.into_iter().map(|p| p.spec.content));
    let mut out = network::defaults(call, sort)?;
    out.retain(|d| !stored.iter().any(|s| s.text(sort.member) == d.text(sort.member)));
    out.extend(stored);
    for part in &mut out {
        part["Tags"] = tags::of(call, part.text(sort.member))?;
    }
    Ok(out)
}

/// One of them.
pub(super) fn find(call: &Call, sort: Sort, id: &str) -> Result<Value, Fault> {
    let part = all(call, sort)?.into_iter().find(|p| p.text(sort.member) == id);
    part.ok_or_else(|| sort.missing(id))
}

/// A new identifier.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}-0{}", hex_id(16))
}

/// Makes a part, with the tags that the request gives to its kind.
pub(super) async fn create(
    call: &Call,
    sort: Sort,
    input: &Value,
    mut content: Value,
) -> Result<Value, Fault> {
    let id = match content.maybe(sort.member) {
        Some(id) => id.to_owned(),
        None => new_id(sort.prefix),
    };
    let mut wanted = tripod_model::aws::Tags::new();
    for specification in input.items("TagSpecifications") {
        let kind = specification.text("ResourceType");
        if kind != sort.kind {
            let text = format!("'{kind}' is not a valid taggable resource type for this operation.");
            return Err(Fault::new("InvalidParameterValue", text));
        }
        wanted.extend(tags_of(specification.items("Tags"), "Key", "Value"));
    }
    content[sort.member] = id.as_str().into();
    content["OwnerId"] = call.account().into();
    let spec = VpcPartSpec {
        region: call.region.clone(),
        kind: sort.kind.into(),
        content,
    };
    let part = VpcPart::new(&id, uid(), call.now(), spec);
    let taken = || Fault::new("InternalError", "the identifier is taken").status(500);
    let mut content = call.create(&part, taken).await?.spec.content;
    if !wanted.is_empty() {
        tags::add(call, &id, &wanted).await?;
    }
    content["Tags"] = tag_list(&wanted, "Key", "Value");
    Ok(content)
}

/// Changes a part; one that is there by itself is written down at its first change.
pub(super) async fn change<T>(
    call: &Call,
    sort: Sort,
    id: &str,
    change: impl Fn(&mut Value) -> Result<T, Fault> + Send + Sync,
) -> Result<T, Fault> {
    let mut content = find(call, sort, id)?;
    if call.state().get::<VpcPart>("", id)?.is_none() {
        if let Some(map) = content.as_object_mut() {
            map.remove("Tags");
        }
        let spec = VpcPartSpec {
            region: call.region.clone(),
            kind: sort.kind.into(),
            content,
        };
        // Somebody else may be first.
        let _ = call.db().create(&VpcPart::new(id, uid(), call.now(), spec)).await;
    }
    let missing = || sort.missing(id);
    let done = call.edit("", id, missing, |p: &mut VpcPart| change(&mut p.spec.content));
    Ok(done.await?.1)
}

/// Removes a part with its tags.
pub(super) async fn remove(call: &Call, sort: Sort, id: &str) -> Result<(), Fault> {
    let state = call.state();
    let part = state
        .get::<VpcPart>("", id)?
        .filter(|p| p.spec.region == call.region);
    let part = part.ok_or_else(|| sort.missing(id))?;
    call.remove(&part).await?;
    if let Some(tags) = state.get::<ResourceTags>("", id)? {
        call.remove(&tags).await?;
    }
    Ok(())
}

/// `DependencyViolation`.
pub(super) fn in_use(what: &str, id: &str) -> Fault {
    let text = format!("The {what} '{id}' has dependencies and cannot be deleted.");
    Fault::new("DependencyViolation", text)
}

/// The refusal to delete a part of the default VPC, which is the cluster's own network.
pub(super) fn own(what: &str, id: &str) -> Fault {
    let text = format!("The {what} '{id}' is part of the cluster's own network and cannot be deleted.");
    Fault::new("OperationNotPermitted", text)
}

/// `{Return: true}`.
pub(super) fn done() -> Value {
    json!({ "Return": true })
}
