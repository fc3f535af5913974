//! The endpoint: from a request to its operation, and from its outcome to an answer.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use tripod_edge::{Handler, Peer, Request, Response, full};
use tripod_engine::{Engine, Manager};
use tripod_model::aws::{AccessKey, User};

use crate::call::{Call, Inner, Principal};
use crate::fault::{Fault, Reply};
use crate::service::{Protocol, Service, Signature, service, services};
use crate::sign::{self, Claim, Signed, Wrong};
use crate::table::{self, Operation};
use crate::{check, iam, query, xml};

/// Bytes of a request's body.
const BODY: usize = 16 << 20;

/// What is the same for all calls.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of the account: 12 digits.
    pub account: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            account: "123456789012".into(),
        }
    }
}

/// The AWS dialect over a daemon's engine.
pub struct Aws {
    engine: Engine,
    settings: Settings,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws").finish_non_exhaustive()
    }
}

impl Aws {
    /// Over an engine.
    pub fn new(engine: Engine, settings: Settings) -> Self {
        Self { engine, settings }
    }

    /// The answer, with what is needed to write a refusal in the right form.
    async fn answer(
        &self,
        request: Request,
        peer: &Peer,
        form: &mut Form,
        id: &str,
    ) -> Result<String, Fault> {
        let (parts, body) = request.into_parts();
        form.of_head(&parts);
        let body = Limited::new(body, BODY).collect().await.map_err(|e| {
            let text = format!("the body cannot be read: {e}");
            Fault::new("RequestEntityTooLarge", text).status(413)
        })?;
        let sent = body.to_bytes();
        let claim = match sign::claim(&parts.headers) {
            Ok(claim) => claim,
            Err(Wrong::Missing) => return Err(form.unsigned_call(&sent)),
            Err(wrong) => return Err(form.unsigned(wrong)),
        };
        form.of_service(&claim.service);
        let manager = self.engine.manager()?;
        let principal =
            authenticate(&manager, &self.settings, &claim, &parts, &sent).map_err(|w| match w {
                Ok(wrong) => form.unsigned(wrong),
                Err(fault) => fault,
            })?;
        let Some(service) = form.service else {
            return Err(Fault::unsupported(&format!("The service {}", claim.service)));
        };
        let body = inflate(&parts, sent)?;
        let (name, input) = read(service, &parts, &body)?;
        let (signature, operation) = find(service, &name)?;
        let input = if let Some(shape) = &signature.input {
            let input = match &input {
                Raw::Json(v) => v.clone(),
                Raw::Form(fields) => query::input(service, shape, fields)?,
            };
            check::input(service, shape, &input)?;
            input
        } else {
            Value::Object(Map::new())
        };
        let call = self.call(manager, claim, principal, &name, peer);
        iam::authorize(&call, &input)?;
        let reply = (operation.run)(call, input).await;
        write(service, &name, signature, reply, id)
    }

    fn call(
        &self,
        manager: Arc<Manager>,
        claim: Claim,
        principal: Principal,
        operation: &str,
        peer: &Peer,
    ) -> Call {
        Call::new(Inner {
            manager,
            settings: self.settings.clone(),
            region: claim.region,
            principal,
            operation: operation.to_owned(),
            service: claim.service,
            source: peer.address.map(|a| a.ip()),
        })
    }
}

impl Handler for Aws {
    async fn handle(&self, request: Request, peer: Arc<Peer>) -> Response {
        if crate::task_endpoint::is_meant(request.uri().path()) {
            return crate::task_endpoint::answer(&self.engine, &self.settings, request).await;
        }
        let id = tripod_engine::aws::uid();
        let mut form = Form::default();
        let (status, body) = match self.answer(request, &peer, &mut form, &id).await {
            Ok(body) => (200, body),
            Err(fault) => {
                if fault.status >= 500 {
                    tracing::warn!(code = fault.code, "an AWS call failed: {}", fault.message);
                }
                fault.render(form.protocol, form.service, &id)
            }
        };
        let content = match form.protocol {
            Protocol::Json => "application/x-amz-json-1.1",
            _ => "text/xml;charset=UTF-8",
        };
        let mut response = Response::new(full(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
        let headers = response.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static(content));
        if let Ok(id) = http::HeaderValue::from_str(&id) {
            headers.insert("x-amzn-requestid", id);
        }
        response
    }
}

/// The form of the answer, as far as it is known.
struct Form {
    protocol: Protocol,
    service: Option<&'static Service>,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            protocol: Protocol::Query,
            service: None,
        }
    }
}

impl Form {
    fn of_head(&mut self, parts: &Parts) {
        let json = parts.headers.contains_key("x-amz-target")
            || header(parts, "content-type").starts_with("application/x-amz-json");
        self.protocol = if json { Protocol::Json } else { Protocol::Query };
    }

    fn of_service(&mut self, name: &str) {
        if let Some(service) = service(name) {
            self.protocol = service.protocol;
            self.service = Some(service);
        }
    }

    /// The refusal of a request without a signature. Two calls of STS have none: what they send is the proof.
    fn unsigned_call(&mut self, body: &[u8]) -> Fault {
        let mut fields = form_urlencoded::parse(body);
        let action = fields.find(|(key, _)| key == "Action").map(|(_, action)| action);
        match action.as_deref() {
            Some(name @ ("AssumeRoleWithSAML" | "AssumeRoleWithWebIdentity")) => {
                self.of_service("sts");
                Fault::unsupported(&format!("The operation {name} of sts"))
            }
            _ => self.unsigned(Wrong::Missing),
        }
    }

    /// The refusal of a request whose signature does not hold.
    fn unsigned(&self, wrong: Wrong) -> Fault {
        let mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS \
                        Secret Access Key and signing method. Consult the service documentation for details.";
        match (self.protocol, wrong) {
            (Protocol::Ec2, Wrong::Expired(text)) => Fault::new("RequestExpired", text),
            (Protocol::Ec2, _) => {
                let text = "AWS was not able to validate the provided access credentials";
                Fault::new("AuthFailure", text).status(401)
            }
            (Protocol::Json, Wrong::Missing) => Fault::new(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ),
            (Protocol::Json, Wrong::Incomplete(text)) => Fault::new("IncompleteSignatureException", text),
            (Protocol::Json, Wrong::Expired(text)) => Fault::new("InvalidSignatureException", text),
            (Protocol::Json, Wrong::Mismatch) => Fault::new("InvalidSignatureException", mismatch),
            (_, Wrong::Missing) => Fault::new(
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            )
            .status(403),
            (_, Wrong::Incomplete(text)) => Fault::new("IncompleteSignature", text).status(403),
            (_, Wrong::Expired(text)) => Fault::new("SignatureDoesNotMatch", text).status(403),
            (_, Wrong::Mismatch) => Fault::new("SignatureDoesNotMatch", mismatch).status(403),
        }
    }
}

fn header<'a>(parts: &'a Parts, name: &str) -> &'a str {
    let value = parts.headers.get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default()
}

/// Who signed, if the signature holds. `Err(Ok(_))`: it does not; `Err(Err(_))`: nobody has that key.
fn authenticate(
    manager: &Manager,
    settings: &Settings,
    claim: &Claim,
    parts: &Parts,
    body: &[u8],
) -> Result<Principal, Result<Wrong, Fault>> {
    let state = manager.db().snapshot();
    let unknown = |expired: bool| match service(&claim.service).map_or(Protocol::Query, |s| s.protocol) {
        Protocol::Ec2 => Fault::new(
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
        .status(401),
        Protocol::Json if expired => Fault::new(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        Protocol::Json => Fault::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        _ if expired => Fault::new(
            "ExpiredToken",
            "The security token included in the request is expired",
        )
        .status(403),
        _ => Fault::new(
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
        .status(403),
    };
    let key: Option<AccessKey> = state
        .get("", &claim.key.to_lowercase())
        .map_err(|e| Err(e.into()))?;
    let Some(key) = key.filter(|k| k.spec.id == claim.key && !k.spec.inactive) else {
        return Err(Err(unknown(false)));
    };
    let now = tripod_model::Time::now();
    if key.spec.token != header(parts, "x-amz-security-token") {
        return Err(Err(unknown(false)));
    }
    if key.spec.expires.is_some_and(|end| end <= now) {
        return Err(Err(unknown(true)));
    }
    let signed = Signed {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body,
    };
    sign::verify(claim, &signed, &key.spec.secret, now).map_err(Ok)?;
    if key.spec.user.is_empty() {
        return Ok(Principal {
            arn: key.spec.session_arn,
            id: key.spec.session_id,
            user: None,
            key: key.spec.id,
        });
    }
    let user = state.get::<User>("", &tripod_engine::aws::user_object(&key.spec.user));
    let user = user.ok().flatten().ok_or_else(|| Err(unknown(false)))?;
    Ok(Principal {
        arn: format!(
            "arn:aws:iam::{}:user{}{}",
            settings.account, user.spec.path, user.spec.name
        ),
        id: user.spec.id,
        user: Some(user.spec.name),
        key: key.spec.id,
    })
}

/// The body of a request that says `Content-Encoding: gzip`.
fn inflate(parts: &Parts, body: Bytes) -> Result<Bytes, Fault> {
    if header(parts, "content-encoding") != "gzip" {
        return Ok(body);
    }
    let mut text = Vec::new();
    let limit = u64::try_from(BODY).unwrap_or(u64::MAX);
    flate2::read::GzDecoder::new(&body[..])
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|e| Fault::new("SerializationException", format!("the body is not gzip: {e}")))?;
    Ok(text.into())
}

enum Raw {
    Json(Value),
    Form(query::Fields),
}

/// The operation's name and its input.
fn read(service: &Service, parts: &Parts, body: &[u8]) -> Result<(String, Raw), Fault> {
    if service.protocol == Protocol::Json {
        let target = header(parts, "x-amz-target");
        let name = target
            .strip_prefix(&service.target)
            .and_then(|rest| rest.strip_prefix('.'));
        let name = name.ok_or_else(|| {
            let known = services()
                .iter()
                .any(|s| !s.target.is_empty() && target.starts_with(&s.target));
            let text = match (target, known) {
                ("", _) => format!("{} takes JSON with a header X-Amz-Target.", service.name),
                (target, true) => format!("{target} is not of the service {}.", service.name),
                (target, false) => format!("Unknown target {target}."),
            };
            Fault::new("UnknownOperationException", text)
        })?;
        let input = match body {
            b"" => Value::Object(Map::new()),
            body => serde_json::from_slice(body)
                .map_err(|e| Fault::new("SerializationException", format!("the body is not JSON: {e}")))?,
        };
        return Ok((name.to_owned(), Raw::Json(input)));
    }
    let mut fields = query::Fields::new();
    for text in [parts.uri.query().unwrap_or_default().as_bytes(), body] {
        fields.extend(form_urlencoded::parse(text).into_owned());
    }
    let Some(name) = fields.get("Action").cloned() else {
        let text = format!("{} takes forms with the parameter Action.", service.name);
        return Err(Fault::new("MissingAction", text));
    };
    match fields.get("Version") {
        Some(version) if *version != service.version => {
            let text = format!("Could not find operation {name} for version {version}");
            Err(Fault::new("InvalidAction", text))
        }
        _ => Ok((name, Raw::Form(fields))),
    }
}

fn find(service: &'static Service, name: &str) -> Result<(&'static Signature, &'static Operation), Fault> {
    match (
        service.operations.get(name),
        table::operation(&service.name, name),
    ) {
        (Some(signature), Some(operation)) => Ok((signature, operation)),
        (Some(_), None) => Err(Fault::unsupported(&format!(
            "The operation {name} of {}",
            service.name
        ))),
        (None, _) if service.others.iter().any(|o| o == name) => Err(Fault::unsupported(&format!(
            "The operation {name} of {}",
            service.name
        ))),
        _ if service.protocol == Protocol::Json => Err(Fault::new(
            "UnknownOperationException",
            format!("Unknown operation {name}."),
        )),
        _ => {
            let text = format!("The action {name} is not valid for this web service.");
            Err(Fault::new("InvalidAction", text))
        }
    }
}

fn write(
    service: &Service,
    name: &str,
    signature: &Signature,
    reply: Reply,
    id: &str,
) -> Result<String, Fault> {
    let value = reply?;
    Ok(match service.protocol {
        Protocol::Json if value.is_null() || signature.output.is_none() => "{}".into(),
        Protocol::Json => crate::value::dense(value).to_string(),
        _ => xml::answer(service, name, signature, &value, id),
    })
}
