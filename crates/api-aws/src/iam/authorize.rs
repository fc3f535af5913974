//! Whether the caller's policies allow the call.

use crate::call::Call;
use crate::fault::Fault;
use crate::service::{Protocol, service};

/// What everybody may ask.
const FREE: &[&str] = &["GetCallerIdentity", "GetSessionToken"];

/// Refuses a call that no policy of the caller allows. Statements for single resources are not evaluated: only those for
/// all resources (`*`) allow.
pub(crate) fn authorize(call: &Call) -> Result<(), Fault> {
    if FREE.contains(&call.operation.as_str()) {
        return Ok(());
    }
    let action = format!("{}:{}", call.service, call.operation);
    let documents = crate::door::documents(call)?;
    if tripod_plan::iam::allowed(documents.iter().map(String::as_str), &action, "*") {
        return Ok(());
    }
    let text = format!(
        "User: {} is not authorized to perform: {action} because no identity-based policy allows the {action} action",
        call.principal.arn
    );
    let protocol = service(&call.service).map_or(Protocol::Query, |s| s.protocol);
    Err(match protocol {
        Protocol::Json => Fault::new("AccessDeniedException", text),
        Protocol::Query => Fault::new("AccessDenied", text).status(403),
        Protocol::Ec2 => Fault::new("UnauthorizedOperation", text).status(403),
    })
}
