//! Identities as policies see them: the documents that speak for one, what holds them in, and its names.

use tripod_engine::Snapshot;
use tripod_engine::aws::user_object;
use tripod_model::aws::{AccessKey, Group, Role, Tags, User};
use tripod_plan::iam::{Decision, Question, decide};

use super::{document_of, groups::group_object, role_arn, role_object, users};
use crate::call::Call;
use crate::fault::Fault;

/// What policies say of and for an identity.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// Documents that allow.
    pub(crate) documents: Vec<String>,
    /// Documents of which each set must allow as well: a boundary, a session's policies.
    pub(crate) bounds: Vec<Vec<String>>,
    /// ARNs it goes by, that of the user or role first.
    pub(crate) arns: Vec<String>,
    pub(crate) tags: Tags,
}

impl Identity {
    /// What its own policies say.
    pub(crate) fn decide(&self, question: &Question<'_>) -> Decision {
        let by = |documents: &Vec<String>| decide(documents.iter().map(String::as_str), question);
        let own = by(&self.documents);
        self.bounds
            .iter()
            .fold(own, |so_far, bound| so_far.and(by(bound)))
    }
}

fn with_attached(
    state: &Snapshot,
    inline: impl IntoIterator<Item = String>,
    attached: &[String],
    out: &mut Vec<String>,
) -> Result<(), Fault> {
    out.extend(inline);
    for arn in attached {
        out.extend(document_of(state, arn)?);
    }
    Ok(())
}

fn boundary(state: &Snapshot, arn: &str) -> Result<Vec<Vec<String>>, Fault> {
    if arn.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![document_of(state, arn)?.into_iter().collect()])
}

/// A user with its groups.
pub(crate) fn of_user(call: &Call, user: &User) -> Result<Identity, Fault> {
    let state = call.state();
    let spec = &user.spec;
    let mut documents = Vec::new();
    with_attached(
        &state,
        spec.inline.values().cloned(),
        &spec.attached,
        &mut documents,
    )?;
    for name in &spec.groups {
        if let Some(group) = state.get::<Group>("", &group_object(name))? {
            with_attached(
                &state,
                group.spec.inline.into_values(),
                &group.spec.attached,
                &mut documents,
            )?;
        }
    }
    Ok(Identity {
        documents,
        bounds: boundary(&state, &spec.boundary)?,
        arns: vec![users::arn(call, spec)],
        tags: spec.tags.clone(),
    })
}

/// A role.
pub(crate) fn of_role(call: &Call, role: &Role) -> Result<Identity, Fault> {
    let state = call.state();
    let spec = &role.spec;
    let mut documents = Vec::new();
    with_attached(
        &state,
        spec.inline.values().cloned(),
        &spec.attached,
        &mut documents,
    )?;
    Ok(Identity {
        documents,
        bounds: boundary(&state, &spec.boundary)?,
        arns: vec![role_arn(call.account(), spec)],
        tags: spec.tags.clone(),
    })
}

/// The caller: the user, or the session's role or user with what the session is held within.
pub(crate) fn of_caller(call: &Call) -> Result<Identity, Fault> {
    let state = call.state();
    let user = |name: &str| match state.get::<User>("", &user_object(name))? {
        Some(user) => of_user(call, &user),
        None => Ok(Identity::default()),
    };
    if let Some(name) = &call.principal.user {
        return user(name);
    }
    let Some(key) = state.get::<AccessKey>("", &call.principal.key.to_lowercase())? else {
        return Ok(Identity::default());
    };
    let key = key.spec;
    let mut identity = if key.session_user.is_empty() {
        match state.get::<Role>("", &role_object(&key.session_role))? {
            Some(role) => of_role(call, &role)?,
            None => Identity::default(),
        }
    } else {
        user(&key.session_user)?
    };
    identity.arns.push(key.session_arn);
    if !key.session_policies.is_empty() {
        identity.bounds.push(key.session_policies);
    }
    Ok(identity)
}
