//! SSM: the parameter store.

mod read;
mod write;

use std::sync::LazyLock;

use regex::Regex;
use tripod_model::aws::Parameter;
use tripod_model::ecs::object_name;

use crate::call::Call;
use crate::fault::Fault;

crate::operations! {
    PutParameter => write::put, "policies are refused; SecureString values are kept as other values are";
    DeleteParameter => write::delete;
    DeleteParameters => write::delete_several;
    LabelParameterVersion => write::label;
    UnlabelParameterVersion => write::unlabel;
    AddTagsToResource => write::add_tags, "parameters only";
    RemoveTagsFromResource => write::remove_tags, "parameters only";
    ListTagsForResource => read::tags, "parameters only";
    GetParameter => read::get;
    GetParameters => read::get_several;
    GetParametersByPath => read::by_path;
    GetParameterHistory => read::history;
    DescribeParameters => read::describe;
}

/// `metadata.name` of a parameter.
fn object(call: &Call, name: &str) -> String {
    object_name(&format!("parameter/{}", call.region), name)
}

/// ARN of a parameter.
pub(crate) fn arn(call: &Call, name: &str) -> String {
    call.arn(
        "ssm",
        &format!("parameter{}{name}", if name.starts_with('/') { "" } else { "/" }),
    )
}

fn not_found(name: &str) -> Fault {
    Fault::new("ParameterNotFound", format!("Parameter {name} not found."))
}

/// A parameter by name or ARN.
pub(crate) fn find(call: &Call, name: &str) -> Result<Option<Parameter>, Fault> {
    let name = match name.split_once(":parameter") {
        Some((_, rest)) => rest,
        None => name,
    };
    let state = call.state();
    let found = state.get::<Parameter>("", &object(call, name))?;
    // A name of one part is the same with a slash before it and without.
    let other = match name.strip_prefix('/') {
        Some(plain) if !plain.contains('/') => plain.to_owned(),
        None if !name.contains('/') => format!("/{name}"),
        _ => return Ok(found),
    };
    match found {
        None => Ok(state.get::<Parameter>("", &object(call, &other))?),
        found => Ok(found),
    }
}

/// Refuses what cannot be the name of a parameter.
fn check_name(name: &str) -> Result<(), Fault> {
    static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[a-zA-Z0-9_.\-/]+$").ok());
    let invalid = |text: String| Err(Fault::new("ValidationException", text));
    if name.is_empty() || NAME.as_ref().is_some_and(|r| !r.is_match(name)) {
        let text = "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist \
                    of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the \
                    following 3 symbols .-_";
        return invalid(text.into());
    }
    let first = name.trim_start_matches('/').to_ascii_lowercase();
    if first.starts_with("aws") || first.starts_with("ssm") {
        return invalid(
            "Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive).".into(),
        );
    }
    if name.contains('/') && !name.starts_with('/') {
        return invalid(
            "Parameter name must be a fully qualified name: it begins with a slash when it has one.".into(),
        );
    }
    if name.ends_with('/') {
        return invalid("Parameter name must not end with slash.".into());
    }
    if name.matches('/').count() > 15 {
        return Err(Fault::new(
            "HierarchyLevelLimitExceededException",
            "Parameter name has more than 15 levels.",
        ));
    }
    Ok(())
}
