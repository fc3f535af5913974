//! IAM: users, access keys, roles, policies, instance profiles.

mod account;
mod attach;
mod authorize;
mod groups;
mod identity;
mod keys;
mod managed;
mod policies;
mod profiles;
mod resources;
mod roles;
mod simulate;
mod users;

use serde_json::{Value, json};
use tripod_engine::Snapshot;
use tripod_model::aws::{Policy, Role};

use crate::fault::Fault;
use crate::value::{Get as _, page};

pub(crate) use authorize::{authorize, may_assume};
pub(crate) use roles::{create_linked as create_linked_role, role_arn, role_object};

crate::operations! {
    CreateUser => users::create;
    GetUser => users::get;
    ListUsers => users::list;
    UpdateUser => users::update;
    DeleteUser => users::delete;
    CreateGroup => groups::create;
    GetGroup => groups::get;
    ListGroups => groups::list;
    UpdateGroup => groups::update;
    DeleteGroup => groups::delete;
    AddUserToGroup => groups::add_user;
    RemoveUserFromGroup => groups::remove_user;
    ListGroupsForUser => groups::of_user;
    ListMFADevices => users::no_devices, "there are no such devices";
    ListVirtualMFADevices => users::no_virtual_devices, "there are no such devices";
    ListSSHPublicKeys => users::no_ssh_keys, "there are no such keys";
    ListSigningCertificates => users::no_certificates, "there are no such certificates";
    ListServiceSpecificCredentials => users::no_credentials, "there are no such credentials";
    GetLoginProfile => users::no_login, "users have no passwords";
    CreateAccountAlias => account::create_alias;
    DeleteAccountAlias => account::delete_alias;
    ListAccountAliases => account::aliases;
    GetAccountPasswordPolicy => account::get_password_policy;
    UpdateAccountPasswordPolicy => account::update_password_policy, "users have no passwords";
    DeleteAccountPasswordPolicy => account::delete_password_policy;
    GetAccountSummary => account::summary;
    GetAccountAuthorizationDetails => account::details;
    SimulateCustomPolicy => simulate::custom, "matched statements are not named";
    SimulatePrincipalPolicy => simulate::principal, "matched statements are not named";
    GetContextKeysForCustomPolicy => simulate::custom_keys;
    GetContextKeysForPrincipalPolicy => simulate::principal_keys;
    PutUserPermissionsBoundary => users::put_boundary;
    DeleteUserPermissionsBoundary => users::delete_boundary;
    PutRolePermissionsBoundary => roles::put_boundary;
    DeleteRolePermissionsBoundary => roles::delete_boundary;
    PutGroupPolicy => attach::put_group;
    GetGroupPolicy => attach::get_group;
    DeleteGroupPolicy => attach::delete_group;
    ListGroupPolicies => attach::list_group;
    AttachGroupPolicy => attach::attach_group;
    DetachGroupPolicy => attach::detach_group;
    ListAttachedGroupPolicies => attach::attached_group;
    TagUser => users::tag;
    UntagUser => users::untag;
    ListUserTags => users::tags;
    CreateAccessKey => keys::create;
    ListAccessKeys => keys::list;
    UpdateAccessKey => keys::update;
    DeleteAccessKey => keys::delete;
    GetAccessKeyLastUsed => keys::last_used, "the time of the last use is not kept";
    CreateRole => roles::create;
    GetRole => roles::get;
    ListRoles => roles::list;
    UpdateRole => roles::update;
    UpdateRoleDescription => roles::update_description;
    UpdateAssumeRolePolicy => roles::update_trust;
    DeleteRole => roles::delete;
    TagRole => roles::tag;
    UntagRole => roles::untag;
    ListRoleTags => roles::tags;
    CreateServiceLinkedRole => roles::create_linked;
    DeleteServiceLinkedRole => roles::delete_linked;
    GetServiceLinkedRoleDeletionStatus => roles::deletion_status;
    PutRolePolicy => attach::put_role;
    GetRolePolicy => attach::get_role;
    DeleteRolePolicy => attach::delete_role;
    ListRolePolicies => attach::list_role;
    AttachRolePolicy => attach::attach_role;
    DetachRolePolicy => attach::detach_role;
    ListAttachedRolePolicies => attach::attached_role;
    PutUserPolicy => attach::put_user;
    GetUserPolicy => attach::get_user;
    DeleteUserPolicy => attach::delete_user;
    ListUserPolicies => attach::list_user;
    AttachUserPolicy => attach::attach_user;
    DetachUserPolicy => attach::detach_user;
    ListAttachedUserPolicies => attach::attached_user;
    CreatePolicy => policies::create;
    GetPolicy => policies::get;
    ListPolicies => policies::list;
    DeletePolicy => policies::delete;
    CreatePolicyVersion => policies::create_version;
    GetPolicyVersion => policies::get_version;
    ListPolicyVersions => policies::list_versions;
    DeletePolicyVersion => policies::delete_version;
    SetDefaultPolicyVersion => policies::set_default;
    TagPolicy => policies::tag;
    UntagPolicy => policies::untag;
    ListPolicyTags => policies::tags;
    ListEntitiesForPolicy => policies::entities;
    CreateInstanceProfile => profiles::create;
    GetInstanceProfile => profiles::get;
    ListInstanceProfiles => profiles::list;
    DeleteInstanceProfile => profiles::delete;
    AddRoleToInstanceProfile => profiles::add_role;
    RemoveRoleFromInstanceProfile => profiles::remove_role;
    ListInstanceProfilesForRole => profiles::of_role;
    TagInstanceProfile => profiles::tag;
    UntagInstanceProfile => profiles::untag;
    ListInstanceProfileTags => profiles::tags;
}

/// `NoSuchEntity`.
fn no_such(what: &str, name: &str) -> Fault {
    let text = format!("The {what} with name {name} cannot be found.");
    Fault::new("NoSuchEntityException", text)
}

fn exists(what: &str, name: &str) -> Fault {
    let text = format!("{what} with name {name} already exists.");
    Fault::new("EntityAlreadyExistsException", text)
}

fn conflict(text: &str) -> Fault {
    Fault::new("DeleteConflictException", text)
}

/// A page of `member`, as IAM pages.
fn listed(input: &Value, member: &str, items: Vec<Value>) -> Result<Value, Fault> {
    let size = usize::try_from(input.number("MaxItems").unwrap_or(100)).unwrap_or(100);
    let (items, next) = page(items, input.maybe("Marker"), size)
        .ok_or_else(|| Fault::new("ValidationError", "Invalid Marker."))?;
    let mut out = json!({ "IsTruncated": next.is_some(), member: items });
    if let Some(next) = next {
        out["Marker"] = next.into();
    }
    Ok(out)
}

/// A path as given, `/` when none is.
fn path_of(input: &Value) -> String {
    input.maybe("Path").unwrap_or("/").to_owned()
}

/// Refuses what is not the policy of an identity.
pub(crate) fn document(text: &str) -> Result<(), Fault> {
    tripod_plan::iam::check_identity(text).map_err(malformed)
}

/// Refuses what is not the trust policy of a role.
fn trust_document(text: &str) -> Result<(), Fault> {
    tripod_plan::iam::check_trust(text).map_err(malformed)
}

fn malformed(why: String) -> Fault {
    Fault::new("MalformedPolicyDocumentException", why)
}

/// Tags of a request; two keys that differ by case alone are refused.
fn tags_given(input: &Value) -> Result<tripod_model::aws::Tags, Fault> {
    let list = input.items("Tags");
    let keys: std::collections::BTreeSet<String> =
        list.iter().map(|t| t.text("Key").to_lowercase()).collect();
    if keys.len() < list.len() {
        let text = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
        return Err(Fault::new("InvalidInputException", text));
    }
    if keys.iter().any(|k| k.starts_with("aws:")) {
        let text = "System tags cannot be added/updated/deleted. User does not have permission.";
        return Err(Fault::new("InvalidInputException", text));
    }
    Ok(crate::value::tags_of(list, "Key", "Value"))
}

/// A document as answers have it: percent-encoded.
fn encoded(document: &str) -> String {
    percent_encoding::utf8_percent_encode(document, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The document of a managed policy that counts.
pub(crate) fn document_of(state: &Snapshot, arn: &str) -> Result<Option<String>, Fault> {
    if let Some(managed) = managed::find(arn) {
        return Ok(Some(managed.document.to_owned()));
    }
    let policy = state.get::<Policy>("", &policies::policy_object(arn))?;
    Ok(policy.and_then(|p| {
        let version = p.spec.versions.get(&p.spec.default_version)?;
        Some(version.document.clone())
    }))
}

/// A role by name.
pub(crate) fn find_role(state: &Snapshot, name: &str) -> Result<Option<Role>, Fault> {
    Ok(state.get::<Role>("", &role_object(name))?)
}
