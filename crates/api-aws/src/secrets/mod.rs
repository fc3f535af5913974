//! Secrets Manager.

mod manage;
mod values;

use tripod_model::aws::ManagedSecret;
use tripod_model::ecs::object_name;

use crate::call::Call;
use crate::fault::Fault;

crate::operations! {
    CreateSecret => manage::create, "no replicas; nothing is encrypted";
    DescribeSecret => manage::describe;
    ListSecrets => manage::list;
    UpdateSecret => manage::update;
    DeleteSecret => manage::delete;
    RestoreSecret => manage::restore;
    TagResource => manage::tag;
    UntagResource => manage::untag;
    GetResourcePolicy => manage::get_policy;
    PutResourcePolicy => manage::put_policy;
    DeleteResourcePolicy => manage::delete_policy;
    ValidateResourcePolicy => manage::validate_policy;
    GetSecretValue => values::get;
    BatchGetSecretValue => values::batch;
    PutSecretValue => values::put;
    ListSecretVersionIds => values::versions;
    UpdateSecretVersionStage => values::stage;
    GetRandomPassword => values::random;
}

/// `metadata.name` of a secret.
fn object(call: &Call, name: &str) -> String {
    object_name(&format!("secret/{}", call.region), name)
}

fn missing() -> Fault {
    Fault::new(
        "ResourceNotFoundException",
        "Secrets Manager can't find the specified secret.",
    )
}

/// A secret by name, ARN, or ARN without the letters at its end.
pub(crate) fn find(call: &Call, id: &str) -> Result<ManagedSecret, Fault> {
    let state = call.state();
    if !id.starts_with("arn:") {
        return state
            .get::<ManagedSecret>("", &object(call, id))?
            .ok_or_else(missing);
    }
    let secrets = state.list::<ManagedSecret>(None)?;
    let of = |s: &ManagedSecret| {
        s.spec.region == call.region
            && (s.spec.arn == id || s.spec.arn.get(..s.spec.arn.len().saturating_sub(7)) == Some(id))
    };
    secrets.into_iter().find(of).ok_or_else(missing)
}

/// As [`find`], of those that are not marked for deletion.
fn live(call: &Call, id: &str) -> Result<ManagedSecret, Fault> {
    let secret = find(call, id)?;
    if secret.spec.deleted.is_some() {
        let text = "You can't perform this operation on the secret because it was marked for deletion.";
        return Err(Fault::new("InvalidRequestException", text));
    }
    Ok(secret)
}
