//! Who may do what.

use crate::authn::User;
use crate::rbac::Rules;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// Plural name with the subresource: `pods/log`.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Path of what is no resource.
    pub(crate) path: String,
}

/// Whether a user may.
pub(crate) fn allowed(rules: &Rules, user: &User, asked: &Attributes) -> bool {
    user.is_master() || rules.allow(user, asked)
}

/// 403 in the API's words.
pub(crate) fn refusal(user: &User, asked: &Attributes) -> tripod_schema::Failure {
    use tripod_schema::Failure;
    let name = &user.name;
    if !asked.path.is_empty() {
        return Failure::new(
            403,
            "Forbidden",
            format_args!(
                "forbidden: User {name:?} cannot {} path {:?}",
                asked.verb, asked.path
            ),
        );
    }
    let plural = asked.resource.split('/').next().unwrap_or_default();
    let qualified = if asked.group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{}", asked.group)
    };
    let scope = if asked.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", asked.namespace)
    };
    let object = if asked.name.is_empty() {
        String::new()
    } else {
        format!(" {:?}", asked.name)
    };
    Failure::new(
        403,
        "Forbidden",
        format_args!(
            "{qualified}{object} is forbidden: User {name:?} cannot {} resource {:?} in API group {:?} {scope}",
            asked.verb,
            asked.resource,
            asked.group
        ),
    )
    .about(&asked.group, plural, &asked.name)
}
