//! Acting as somebody else, for those who may.

use tripod_schema::Failure;
use tripod_schema::failure::Result;

use crate::authn::User;
use crate::authz::{self, Attributes};
use crate::call::Call;

const EXTRA: &str = "impersonate-extra-";

/// The user that a request is made as.
pub(crate) fn act_as(call: &Call, user: User) -> Result<User> {
    let name = call.header("impersonate-user").unwrap_or_default().to_owned();
    let groups: Vec<String> = call
        .headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok().map(str::to_owned))
        .collect();
    let uid = call.header("impersonate-uid").unwrap_or_default().to_owned();
    let extra: Vec<(String, String)> = call
        .headers
        .iter()
        .filter_map(|(key, value)| {
            let key = key.as_str().strip_prefix(EXTRA)?;
            let key = percent_encoding::percent_decode_str(key)
                .decode_utf8_lossy()
                .into_owned();
            Some((key, value.to_str().ok()?.to_owned()))
        })
        .collect();
    if name.is_empty() {
        if !groups.is_empty() || !extra.is_empty() || !uid.is_empty() {
            return Err(Failure::internal(
                "requested impersonation without impersonating a user",
            ));
        }
        return Ok(user);
    }
    let rules = call.shared.rules.rules(&call.manager);
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let asked = Attributes {
            verb: "impersonate".into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            path: String::new(),
        };
        if authz::allowed(&rules, &user, &asked) {
            Ok(())
        } else {
            Err(authz::refusal(&user, &asked))
        }
    };
    let mut other = User {
        groups: groups.clone(),
        uid: uid.clone(),
        ..User::default()
    };
    match name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
    {
        Some((namespace, account)) => {
            may("", "serviceaccounts", namespace, account)?;
            if groups.is_empty() {
                other.groups = vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            }
        }
        None => may("", "users", "", &name)?,
    }
    for group in &groups {
        may("", "groups", "", group)?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", &uid)?;
    }
    for (key, value) in extra {
        may("authentication.k8s.io", &format!("userextras/{key}"), "", &value)?;
        other.extra.entry(key).or_default().push(value);
    }
    let anonymous = name == "system:anonymous";
    other.name = name;
    if anonymous {
        other.groups.push("system:unauthenticated".into());
        return Ok(other);
    }
    Ok(other.proven())
}
