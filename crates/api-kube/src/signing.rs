//! CertificateSigningRequests: checked when they are made, signed when they are approved.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tripod_schema::failure::Result;
use tripod_schema::value::{int, list, name, object_mut, text};
use tripod_schema::{Cause, Failure, Kind};
use x509_parser::prelude::FromDer as _;

use crate::call::Call;

/// How long a certificate lasts unless the request says less: a year.
const LONGEST: i64 = 365 * 24 * 3600;
/// Whose requests are signed here; others have signers of their own.
const CLIENTS: [&str; 2] = [
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
];
const SERVERS: &str = "kubernetes.io/kubelet-serving";

fn pem(request: &Value) -> Option<String> {
    let bytes = STANDARD.decode(text(request, &["spec", "request"])).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&bytes).ok()?;
    let parsed = x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents);
    (block.label == "CERTIFICATE REQUEST" && parsed.is_ok()).then(|| String::from_utf8(bytes).ok())?
}

/// Says who asks, and refuses what is no request.
pub(crate) fn admit(call: &Call, kind: &Kind, request: &mut Value) -> Result<()> {
    if pem(request).is_none() {
        let said = text(request, &["spec", "request"]);
        let why = "PEM block type must be CERTIFICATE REQUEST";
        let causes = vec![Cause::invalid_text("spec.request", said, why)];
        return Err(Failure::invalid(kind, name(request), causes));
    }
    let spec = object_mut(request, &["spec"]);
    for said in ["username", "uid", "groups", "extra"] {
        spec.remove(said);
    }
    spec.insert("username".into(), call.user.name.clone().into());
    if !call.user.uid.is_empty() {
        spec.insert("uid".into(), call.user.uid.clone().into());
    }
    spec.insert("groups".into(), call.user.groups.clone().into());
    if !call.user.extra.is_empty() {
        spec.insert("extra".into(), json!(call.user.extra));
    }
    Ok(())
}

/// Gives a request that was approved its certificate, where this cluster is the signer.
pub(crate) fn sign(call: &Call, request: &mut Value) {
    let holds = |what: &str| {
        let conditions = list(request, &["status", "conditions"]);
        conditions
            .iter()
            .any(|c| text(c, &["type"]) == what && text(c, &["status"]) == "True")
    };
    let signer = text(request, &["spec", "signerName"]);
    let server = signer == SERVERS;
    let known = server || CLIENTS.contains(&signer);
    let done = !text(request, &["status", "certificate"]).is_empty();
    if !known || done || !holds("Approved") || holds("Denied") || holds("Failed") {
        return;
    }
    let wanted = int(request, &["spec", "expirationSeconds"]).unwrap_or(LONGEST);
    let seconds = u64::try_from(wanted.clamp(600, LONGEST)).unwrap_or_default();
    let Some(asked) = pem(request) else { return };
    let signed = call
        .manager
        .sign_certificate(&asked, server, Duration::from_secs(seconds));
    let status = object_mut(request, &["status"]);
    match signed {
        Ok(certificate) => drop(status.insert("certificate".into(), STANDARD.encode(certificate).into())),
        Err(e) => {
            let failed = json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": e.to_string()});
            if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
                conditions.push(failed);
            }
        }
    }
}
