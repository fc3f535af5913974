//! Managed policies: those of the account with their versions, and AWS's own to be read.

use serde_json::{Value, json};
use tripod_engine::aws::{iam_id, uid};
use tripod_model::Time;
use tripod_model::aws::{Group, Policy, PolicySpec, PolicyVersion, Role, User};

use super::managed::{self, MANAGED, Managed};
use super::{conflict, document, encoded, exists, listed, path_of};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, epoch_of, tag_list};

/// Versions that a policy may have.
const VERSIONS: usize = 5;

/// `metadata.name` of a policy by its ARN.
pub(super) fn policy_object(arn: &str) -> String {
    let name = arn.rsplit('/').next().unwrap_or_default();
    tripod_model::ecs::object_name("policy", &name.to_lowercase())
}

fn arn(call: &Call, spec: &PolicySpec) -> String {
    format!("arn:aws:iam::{}:policy{}{}", call.account(), spec.path, spec.name)
}

fn missing(arn: &str) -> Fault {
    Fault::new("NoSuchEntityException", format!("Policy {arn} was not found."))
}

fn find(call: &Call, wanted: &str) -> Result<Policy, Fault> {
    let policy = call.state().get::<Policy>("", &policy_object(wanted))?;
    policy
        .filter(|p| arn(call, &p.spec) == wanted)
        .ok_or_else(|| missing(wanted))
}

/// Who has a policy.
struct Holders {
    users: Vec<User>,
    groups: Vec<Group>,
    roles: Vec<Role>,
    /// How many it bounds.
    bounded: usize,
}

impl Holders {
    fn count(&self) -> usize {
        self.users.len() + self.groups.len() + self.roles.len()
    }
}

fn holders(call: &Call, arn: &str) -> Result<Holders, Fault> {
    let state = call.state();
    let (mut users, mut roles) = (state.list::<User>(None)?, state.list::<Role>(None)?);
    let mut groups = state.list::<Group>(None)?;
    let bounded = users.iter().filter(|u| u.spec.boundary == arn).count()
        + roles.iter().filter(|r| r.spec.boundary == arn).count();
    users.retain(|u| u.spec.attached.iter().any(|a| a == arn));
    groups.retain(|g| g.spec.attached.iter().any(|a| a == arn));
    roles.retain(|r| r.spec.attached.iter().any(|a| a == arn));
    Ok(Holders {
        users,
        groups,
        roles,
        bounded,
    })
}

fn shown(call: &Call, policy: &Policy) -> Result<Value, Fault> {
    let s = &policy.spec;
    let arn = arn(call, s);
    let held = holders(call, &arn)?;
    Ok(json!({
        "PolicyName": s.name, "PolicyId": s.id, "Arn": arn, "Path": s.path,
        "DefaultVersionId": s.default_version, "AttachmentCount": held.count(),
        "PermissionsBoundaryUsageCount": held.bounded, "IsAttachable": true, "Description": s.description,
        "CreateDate": epoch_of(policy.metadata.creation_timestamp), "UpdateDate": epoch_of(s.updated),
        "Tags": if s.tags.is_empty() { Value::Null } else { tag_list(&s.tags, "Key", "Value") },
    }))
}

fn shown_managed(call: &Call, m: &Managed) -> Result<Value, Fault> {
    let held = holders(call, &m.arn())?;
    Ok(json!({
        "PolicyName": m.name, "PolicyId": format!("ANPA{:017X}", tripod_model::ecs::fnv(&[m.name])), "Arn": m.arn(),
        "Path": m.path, "DefaultVersionId": "v1", "AttachmentCount": held.count(),
        "PermissionsBoundaryUsageCount": held.bounded, "IsAttachable": true, "CreateDate": 1_420_070_400.0,
        "UpdateDate": 1_420_070_400.0,
    }))
}

pub(super) async fn create(call: Call, input: Value) -> Reply {
    let name = input.text("PolicyName");
    document(input.text("PolicyDocument"))?;
    let now = call.now();
    let version = PolicyVersion {
        document: input.text("PolicyDocument").to_owned(),
        created: Some(now),
    };
    let spec = PolicySpec {
        name: name.to_owned(),
        path: path_of(&input),
        id: iam_id("ANPA"),
        description: input.maybe("Description").map(str::to_owned),
        versions: [("v1".to_owned(), version)].into(),
        default_version: "v1".into(),
        next: 2,
        tags: super::tags_given(&input)?,
        updated: Some(now),
    };
    let policy = Policy::new(policy_object(&format!("/{name}")), uid(), now, spec);
    let taken = || {
        let text = format!("A policy called {name} already exists. Duplicate names are not allowed.");
        Fault {
            message: text,
            ..exists("Policy", name)
        }
    };
    let policy = call.create(&policy, taken).await?;
    Ok(json!({ "Policy": shown(&call, &policy)? }))
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let arn = input.text("PolicyArn");
    if let Some(m) = managed::find(arn) {
        return Ok(json!({ "Policy": shown_managed(&call, m)? }));
    }
    Ok(json!({ "Policy": shown(&call, &find(&call, arn)?)? }))
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let scope = input.maybe("Scope").unwrap_or("All");
    let mut items = Vec::new();
    if scope != "AWS" {
        let policies = call.state().list::<Policy>(None)?;
        for policy in &policies {
            items.push(shown(&call, policy)?);
        }
    }
    if scope != "Local" {
        for m in MANAGED {
            items.push(shown_managed(&call, m)?);
        }
    }
    let prefix = input.maybe("PathPrefix").unwrap_or("/");
    let attached = input.flag("OnlyAttached").unwrap_or(false);
    items.retain(|p| {
        p.text("Path").starts_with(prefix) && (!attached || p.number("AttachmentCount") > Some(0))
    });
    items.sort_by(|a, b| a.text("PolicyName").cmp(b.text("PolicyName")));
    listed(&input, "Policies", items)
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let arn = input.text("PolicyArn");
    let policy = find(&call, arn)?;
    let held = holders(&call, arn)?;
    if held.count() + held.bounded > 0 {
        return Err(conflict("Cannot delete a policy attached to entities."));
    }
    if policy.spec.versions.len() > 1 {
        let text = "This policy has more than one version. Before you delete a policy, you must delete the policy's \
                    versions. The default version is deleted with the policy.";
        return Err(conflict(text));
    }
    call.remove(&policy).await?;
    Ok(Value::Null)
}

async fn change<T>(
    call: &Call,
    input: &Value,
    change: impl Fn(&mut PolicySpec) -> Result<T, Fault> + Send + Sync,
) -> Result<T, Fault> {
    let arn = input.text("PolicyArn");
    find(call, arn)?;
    let done = call
        .edit(
            "",
            &policy_object(arn),
            || missing(arn),
            |p: &mut Policy| change(&mut p.spec),
        )
        .await?;
    Ok(done.1)
}

fn version_of(spec: &PolicySpec, id: &str, whole: bool) -> Value {
    let version = spec.versions.get(id).cloned().unwrap_or_default();
    let text = if whole {
        encoded(&version.document).into()
    } else {
        Value::Null
    };
    json!({
        "VersionId": id, "IsDefaultVersion": spec.default_version == id, "CreateDate": epoch_of(version.created),
        "Document": text,
    })
}

fn no_version(arn: &str, id: &str) -> Fault {
    let text = format!("Policy {arn} version {id} does not exist or is not attachable.");
    Fault::new("NoSuchEntityException", text)
}

pub(super) async fn create_version(call: Call, input: Value) -> Reply {
    document(input.text("PolicyDocument"))?;
    let now = Time::now();
    let version = change(&call, &input, |p| {
        if p.versions.len() >= VERSIONS {
            let text = "A managed policy can have up to 5 versions. Before you create a new version, you must delete \
                        an existing version.";
            return Err(Fault::new("LimitExceededException", text));
        }
        let id = format!("v{}", p.next);
        p.next += 1;
        p.updated = Some(now);
        let document = input.text("PolicyDocument").to_owned();
        p.versions.insert(id.clone(), PolicyVersion { document, created: Some(now) });
        if input.flag("SetAsDefault").unwrap_or(false) {
            p.default_version.clone_from(&id);
        }
        Ok(version_of(p, &id, false))
    })
    .await?;
    Ok(json!({ "PolicyVersion": version }))
}

pub(super) async fn get_version(call: Call, input: Value) -> Reply {
    let (arn, id) = (input.text("PolicyArn"), input.text("VersionId"));
    if let Some(m) = managed::find(arn) {
        if id != "v1" {
            return Err(no_version(arn, id));
        }
        return Ok(json!({ "PolicyVersion": {
            "VersionId": "v1", "IsDefaultVersion": true, "CreateDate": 1_420_070_400.0,
            "Document": encoded(m.document),
        } }));
    }
    let policy = find(&call, arn)?;
    if !policy.spec.versions.contains_key(id) {
        return Err(no_version(arn, id));
    }
    Ok(json!({ "PolicyVersion": version_of(&policy.spec, id, true) }))
}

pub(super) async fn list_versions(call: Call, input: Value) -> Reply {
    let arn = input.text("PolicyArn");
    if managed::find(arn).is_some() {
        let one = json!({ "VersionId": "v1", "IsDefaultVersion": true, "CreateDate": 1_420_070_400.0 });
        return listed(&input, "Versions", vec![one]);
    }
    let policy = find(&call, arn)?;
    let mut ids: Vec<&String> = policy.spec.versions.keys().collect();
    ids.sort_by_key(|id| std::cmp::Reverse(id.trim_start_matches('v').parse::<u64>().unwrap_or(0)));
    let items = ids
        .into_iter()
        .map(|id| version_of(&policy.spec, id, false))
        .collect();
    listed(&input, "Versions", items)
}

pub(super) async fn delete_version(call: Call, input: Value) -> Reply {
    change(&call, &input, |p| {
        let id = input.text("VersionId");
        if p.default_version == id {
            return Err(conflict("Cannot delete the default version of a policy."));
        }
        let gone = p.versions.remove(id);
        gone.map(drop)
            .ok_or_else(|| no_version(input.text("PolicyArn"), id))
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn set_default(call: Call, input: Value) -> Reply {
    change(&call, &input, |p| {
        let id = input.text("VersionId");
        if !p.versions.contains_key(id) {
            return Err(no_version(input.text("PolicyArn"), id));
        }
        p.default_version = id.to_owned();
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn tag(call: Call, input: Value) -> Reply {
    let tags = super::tags_given(&input)?;
    change(&call, &input, |p| {
        p.tags.extend(tags.clone());
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn untag(call: Call, input: Value) -> Reply {
    let keys = input.texts("TagKeys");
    change(&call, &input, |p| {
        p.tags.retain(|k, _| !keys.contains(k));
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn tags(call: Call, input: Value) -> Reply {
    let policy = find(&call, input.text("PolicyArn"))?;
    let tags = tag_list(&policy.spec.tags, "Key", "Value");
    listed(&input, "Tags", tags.as_array().cloned().unwrap_or_default())
}

pub(super) async fn entities(call: Call, input: Value) -> Reply {
    let arn = input.text("PolicyArn");
    if managed::find(arn).is_none() {
        find(&call, arn)?;
    }
    let held = holders(&call, arn)?;
    let filter = input.maybe("EntityFilter").unwrap_or("");
    let prefix = input.maybe("PathPrefix").unwrap_or("/");
    let wants = |kind: &str, path: &str| (filter.is_empty() || filter == kind) && path.starts_with(prefix);
    let mut rows: Vec<Value> = Vec::new();
    for u in held.users.iter().filter(|u| wants("User", &u.spec.path)) {
        rows.push(json!(["PolicyUsers", { "UserName": u.spec.name, "UserId": u.spec.id }]));
    }
    for g in held.groups.iter().filter(|g| wants("Group", &g.spec.path)) {
        rows.push(json!(["PolicyGroups", { "GroupName": g.spec.name, "GroupId": g.spec.id }]));
    }
    for r in held.roles.iter().filter(|r| wants("Role", &r.spec.path)) {
        rows.push(json!(["PolicyRoles", { "RoleName": r.spec.name, "RoleId": r.spec.id }]));
    }
    let page = listed(&input, "Items", rows)?;
    let of = |member: &str| -> Value {
        let of = page.items("Items").iter().filter(|row| row[0] == member);
        of.map(|row| row[1].clone()).collect()
    };
    Ok(json!({
        "PolicyGroups": of("PolicyGroups"), "PolicyUsers": of("PolicyUsers"), "PolicyRoles": of("PolicyRoles"),
        "IsTruncated": page["IsTruncated"], "Marker": page.get("Marker"),
    }))
}

/// Policies as `GetAccountAuthorizationDetails` tells them: with the documents of their versions.
pub(super) fn details(call: &Call, local: bool, aws: bool) -> Result<Vec<Value>, Fault> {
    let mut out = Vec::new();
    if local {
        for policy in call.state().list::<Policy>(None)? {
            let mut v = shown(call, &policy)?;
            let ids = policy.spec.versions.keys();
            v["PolicyVersionList"] = ids.map(|id| version_of(&policy.spec, id, true)).collect();
            out.push(v);
        }
    }
    if aws {
        for m in MANAGED {
            let mut v = shown_managed(call, m)?;
            if v.number("AttachmentCount") == Some(0) {
                continue;
            }
            v["PolicyVersionList"] = json!([{
                "VersionId": "v1", "IsDefaultVersion": true, "CreateDate": 1_420_070_400.0,
                "Document": encoded(m.document),
            }]);
            out.push(v);
        }
    }
    Ok(out)
}
