//! What is set for the account as a whole, and what it holds.

use serde_json::{Map, Value, json};
use tripod_engine::aws::uid;
use tripod_model::aws::{Account, AccountSpec, Group, InstanceProfile, Policy, Role, User};

use super::{encoded, groups, listed, policies, profiles, roles, users};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, tag_list};

const OBJECT: &str = "account";

fn account(call: &Call) -> Result<AccountSpec, Fault> {
    let account = call.state().get::<Account>("", OBJECT)?;
    Ok(account.map(|a| a.spec).unwrap_or_default())
}

async fn change(
    call: &Call,
    change: impl Fn(&mut AccountSpec) -> Result<(), Fault> + Send + Sync,
) -> Result<(), Fault> {
    if call.state().get::<Account>("", OBJECT)?.is_none() {
        let empty = Account::new(OBJECT, uid(), call.now(), AccountSpec::default());
        // Somebody else may be first.
        let _ = call.db().create(&empty).await;
    }
    let gone = || Fault::new("ServiceFailureException", "the account's settings are gone").status(500);
    call.edit("", OBJECT, gone, |a: &mut Account| change(&mut a.spec))
        .await?;
    Ok(())
}

pub(super) async fn create_alias(call: Call, input: Value) -> Reply {
    let alias = input.text("AccountAlias");
    change(&call, |a| {
        alias.clone_into(&mut a.alias);
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete_alias(call: Call, input: Value) -> Reply {
    let alias = input.text("AccountAlias");
    change(&call, |a| {
        if a.alias != alias {
            let text = format!("The account alias {alias} cannot be found.");
            return Err(Fault::new("NoSuchEntityException", text));
        }
        a.alias.clear();
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn aliases(call: Call, input: Value) -> Reply {
    let alias = account(&call)?.alias;
    let items = Some(alias).filter(|a| !a.is_empty()).map(Value::from);
    listed(&input, "AccountAliases", items.into_iter().collect())
}

fn no_policy(call: &Call) -> Fault {
    let text = format!(
        "The Password Policy with domain name {} cannot be found.",
        call.account()
    );
    Fault::new("NoSuchEntityException", text)
}

pub(super) async fn get_password_policy(call: Call, _: Value) -> Reply {
    let policy = account(&call)?.password_policy.ok_or_else(|| no_policy(&call))?;
    Ok(json!({ "PasswordPolicy": policy }))
}

pub(super) async fn update_password_policy(call: Call, input: Value) -> Reply {
    let mut policy = json!({
        "MinimumPasswordLength": 6, "RequireSymbols": false, "RequireNumbers": false,
        "RequireUppercaseCharacters": false, "RequireLowercaseCharacters": false,
        "AllowUsersToChangePassword": false, "ExpirePasswords": false,
    });
    let given = input.as_object().into_iter().flatten();
    for (key, value) in given {
        policy[key] = value.clone();
    }
    policy["ExpirePasswords"] = (input.number("MaxPasswordAge") > Some(0)).into();
    change(&call, |a| {
        a.password_policy = Some(policy.clone());
        Ok(())
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn delete_password_policy(call: Call, _: Value) -> Reply {
    change(&call, |a| {
        a.password_policy.take().map(drop).ok_or_else(|| no_policy(&call))
    })
    .await?;
    Ok(Value::Null)
}

pub(super) async fn summary(call: Call, _: Value) -> Reply {
    let state = call.state();
    let profiles = state.raw::<InstanceProfile>(None).count();
    Ok(json!({ "SummaryMap": {
        "Users": state.raw::<User>(None).count(), "UsersQuota": 5000,
        "Roles": state.raw::<Role>(None).count(), "RolesQuota": 1000,
        "Policies": state.raw::<Policy>(None).count(), "PoliciesQuota": 1500,
        "Groups": state.raw::<Group>(None).count(), "GroupsQuota": 300,
        "InstanceProfiles": profiles, "InstanceProfilesQuota": 1000,
        "AccessKeysPerUserQuota": 2, "VersionsPerPolicyQuota": 5, "AttachedPoliciesPerUserQuota": 10,
        "AttachedPoliciesPerRoleQuota": 10, "AttachedPoliciesPerGroupQuota": 10, "GroupsPerUserQuota": 10,
        "MFADevices": 0, "MFADevicesInUse": 0, "AccountMFAEnabled": 0, "AccountAccessKeysPresent": 0,
        "Providers": 0, "ServerCertificates": 0, "SigningCertificatesPerUserQuota": 2,
        "AssumeRolePolicySizeQuota": 2048, "GroupPolicySizeQuota": 5120, "UserPolicySizeQuota": 2048,
        "RolePolicySizeQuota": 10240, "PolicySizeQuota": 6144, "ServerCertificatesQuota": 20,
        "GlobalEndpointTokenVersion": 1, "PolicyVersionsInUse": 0, "PolicyVersionsInUseQuota": 10000,
        "AccountSigningCertificatesPresent": 0,
    } }))
}

fn inline(policies: &std::collections::BTreeMap<String, String>) -> Value {
    let one =
        |(name, text): (&String, &String)| json!({ "PolicyName": name, "PolicyDocument": encoded(text) });
    policies.iter().map(one).collect()
}

fn attached(arns: &[String]) -> Value {
    let one = |arn: &String| json!({ "PolicyName": crate::ecs::last_part(arn), "PolicyArn": arn });
    arns.iter().map(one).collect()
}

/// `GetAccountAuthorizationDetails`: everything, of the kinds that are asked for.
pub(super) async fn details(call: Call, input: Value) -> Reply {
    let state = call.state();
    let wanted = input.texts("Filter");
    let wants = |kind: &str| wanted.is_empty() || wanted.iter().any(|w| w == kind);
    let mut items: Vec<(&str, Value)> = Vec::new();
    if wants("User") {
        for user in state.list::<User>(None)? {
            let mut v = users::with_tags(users::shown(&call, &user), &user);
            v["UserPolicyList"] = inline(&user.spec.inline);
            v["AttachedManagedPolicies"] = attached(&user.spec.attached);
            v["GroupList"] = json!(user.spec.groups);
            items.push(("UserDetailList", v));
        }
    }
    if wants("Group") {
        for group in state.list::<Group>(None)? {
            let mut v = groups::shown(&call, &group);
            v["GroupPolicyList"] = inline(&group.spec.inline);
            v["AttachedManagedPolicies"] = attached(&group.spec.attached);
            items.push(("GroupDetailList", v));
        }
    }
    if wants("Role") {
        let all = state.list::<InstanceProfile>(None)?;
        for role in state.list::<Role>(None)? {
            let mut v = roles::shown(&call, &role, true);
            v["RolePolicyList"] = inline(&role.spec.inline);
            v["AttachedManagedPolicies"] = attached(&role.spec.attached);
            v["Tags"] = tag_list(&role.spec.tags, "Key", "Value");
            let of_role = all.iter().filter(|p| p.spec.roles.contains(&role.spec.name));
            v["InstanceProfileList"] = of_role
                .map(|p| profiles::shown(&call, p))
                .collect::<Result<Value, _>>()?;
            items.push(("RoleDetailList", v));
        }
    }
    for v in policies::details(&call, wants("LocalManagedPolicy"), wants("AWSManagedPolicy"))? {
        items.push(("Policies", v));
    }
    let rows = items.into_iter().map(|(member, v)| json!([member, v])).collect();
    let page = listed(&input, "Items", rows)?;
    let mut out = Map::new();
    for member in ["UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"] {
        let of = page.items("Items").iter().filter(|row| row[0] == member);
        out.insert(member.into(), of.map(|row| row[1].clone()).collect());
    }
    for member in ["IsTruncated", "Marker"] {
        out.insert(member.into(), page.get(member).cloned().unwrap_or_default());
    }
    Ok(Value::Object(out))
}
