//! Reading: one object, lists in pages.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tripod_schema::failure::Result;
use tripod_schema::selector::{FieldSelector, LabelSelector};
use tripod_schema::{Cause, Failure};
use tripod_store::{Continue, Gone, KindId, List, ListQuery, StoredObject};

use super::key;
use crate::call::Call;
use crate::convert::outward_bytes;
use crate::encode::{list_metadata, list_reply, object_reply};
use crate::reply::Reply;
use crate::target::Target;

/// How long a reader waits for a revision that is yet to come.
const PATIENCE: Duration = Duration::from_secs(3);

/// One object.
pub(crate) fn get(call: &Call, target: &Target) -> Reply {
    let state = call.manager.state();
    let stored = state
        .get(&key(target))
        .ok_or_else(|| Failure::not_found(target.kind, &target.name))?;
    let bytes = outward_bytes(target.kind, &stored.bytes);
    object_reply(call, target.kind, StatusCode::OK, &bytes)
}

/// Which objects a request is about.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn of(call: &Call, target: &Target) -> Result<Self> {
        let fields = FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default())?;
        fields.check(&target.kind.resource())?;
        Ok(Self {
            labels: LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())?,
            fields,
        })
    }

    /// Narrows the selection to one name.
    pub(crate) fn only(&mut self, name: &str) {
        self.fields.0.push(("metadata.name".into(), true, name.into()));
    }

    /// The name that is asked for, if only one can be.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.name()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.0.is_empty()
    }

    pub(crate) fn accepts(&self, object: &StoredObject) -> bool {
        if !self.labels.matches(|key| object.labels.get(key)) {
            return false;
        }
        if self.fields.0.is_empty() {
            return true;
        }
        if self.fields.is_meta_only() {
            let of = |key: &str| {
                if key == "metadata.name" {
                    &*object.key.name
                } else {
                    &*object.key.namespace
                }
            };
            return self
                .fields
                .0
                .iter()
                .all(|(key, equal, wanted)| (of(key) == wanted) == *equal);
        }
        serde_json::from_slice::<Value>(&object.bytes).is_ok_and(|v| self.fields.accepts(&v))
    }
}

/// Waits for a revision that a client has seen.
///
/// # Errors
/// 504 when it does not come.
pub(crate) async fn reached(call: &Call, revision: u64) -> Result<()> {
    let now = call.manager.state().revision();
    if revision <= now {
        return Ok(());
    }
    if tokio::time::timeout(PATIENCE, call.manager.revision_reached(revision))
        .await
        .is_ok_and(|r| r.is_ok())
    {
        return Ok(());
    }
    let mut failure = Failure::new(
        504,
        "Timeout",
        format_args!("Timeout: Too large resource version: {revision}, current: {now}"),
    );
    failure.details.causes = vec![Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    failure.details.retry_after = Some(1);
    Err(failure)
}

/// The revision that a request names.
pub(crate) fn revision(call: &Call) -> Result<Option<u64>> {
    match call.query.get("resourceVersion") {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Failure::bad_request(format_args!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }),
    }
}

/// A list, or a page of one.
pub(crate) async fn list(call: &Call, target: &Target) -> Reply {
    let selection = Selection::of(call, target)?;
    let limit = call.query.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    let wanted = revision(call)?;
    let rule = call.query.get("resourceVersionMatch").unwrap_or_default();
    let after = match call.query.get("continue") {
        None | Some("") => None,
        Some(token) => Some(decode_token(token)?),
    };
    check_rule(rule, wanted, after.is_some())?;
    if let Some(revision) = wanted.filter(|_| after.is_none()) {
        reached(call, revision).await?;
    }
    // Without a rule, a page of a list at a revision is meant exactly.
    let exact = rule == "Exact" || rule.is_empty() && limit > 0;
    let then = wanted.filter(|r| exact && *r > 0 && after.is_none());
    let page = page(call, target, &selection, limit, after.as_ref(), then)?;
    let remaining = match (&page.next, selection.is_all()) {
        (Some(_), true) => Some(remaining(call, target, &page)),
        _ => None,
    };
    let next = page.next.as_ref().map(encode_token);
    let metadata = list_metadata(page.revision, next, remaining);
    let items: Vec<Bytes> = page
        .items
        .iter()
        .map(|o| outward_bytes(target.kind, &o.bytes))
        .collect();
    list_reply(call, target.kind, metadata, items)
}

fn check_rule(rule: &str, wanted: Option<u64>, continued: bool) -> Result<()> {
    let forbidden = |why: &str| {
        Failure::new(
            422,
            "Invalid",
            format_args!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {why}"),
        )
    };
    match rule {
        "" => Ok(()),
        "Exact" | "NotOlderThan" if continued => Err(forbidden(
            "resourceVersionMatch is forbidden when continue is provided",
        )),
        "Exact" if wanted == Some(0) => Err(forbidden(
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        "Exact" | "NotOlderThan" if wanted.is_none() => Err(forbidden(
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        "Exact" | "NotOlderThan" => Ok(()),
        other => Err(Failure::new(
            422,
            "Invalid",
            format_args!(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: {other:?}: supported \
                 values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        )),
    }
}

fn page(
    call: &Call,
    target: &Target,
    selection: &Selection,
    limit: usize,
    after: Option<&Continue>,
    then: Option<u64>,
) -> Result<List> {
    let accepts = |object: &StoredObject| selection.accepts(object);
    let mut query = ListQuery::new(target.kind.stored().as_str()).page(limit, after);
    if target.kind.namespaced && !target.namespace.is_empty() {
        query = query.namespace(&target.namespace);
    }
    if !selection.is_all() {
        query = query.filter(&accepts);
    }
    let now = call.manager.state();
    if let Some(revision) = then.filter(|r| *r != now.revision()) {
        return call.manager.page_at(&query, revision).map_err(|gone: Gone| {
            Failure::expired(format_args!(
                "The resourceVersion for the provided list is too old: {} ({})",
                gone.asked, gone.oldest
            ))
        });
    }
    // A token without a revision goes on in whatever there is now.
    if let Some(after) = after.filter(|a| a.revision == 0) {
        let anew = after.at(now.revision());
        query.after = Some(&anew);
        return Ok(now.list(&query));
    }
    if let (None, Some(name)) = (after, selection.name()) {
        // A list of one is looked up.
        let place = Target {
            name: name.to_owned(),
            ..target.clone()
        };
        if !target.kind.namespaced || !target.namespace.is_empty() {
            let found = now.get(&key(&place)).filter(|o| selection.accepts(o));
            let items: Vec<Arc<StoredObject>> = found.cloned().into_iter().collect();
            return Ok(List {
                revision: now.revision(),
                items,
                next: None,
            });
        }
    }
    call.manager.page(&query).map_err(|gone: Gone| {
        let mut failure = Failure::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        if let Some(after) = after.filter(|a| a.revision == gone.asked) {
            failure.continue_with(&encode_token(&after.at(0)));
        }
        failure
    })
}

/// How many objects follow a page.
fn remaining(call: &Call, target: &Target, page: &List) -> usize {
    let state = call.manager.state();
    let namespace =
        (target.kind.namespaced && !target.namespace.is_empty()).then_some(target.namespace.as_str());
    let Some(last) = page.items.last() else { return 0 };
    let place = |o: &StoredObject| (o.key.namespace.clone(), o.key.name.clone());
    let end = place(last);
    state
        .iter(&KindId::new(target.kind.stored()), namespace)
        .filter(|o| place(o) > end)
        .count()
}

fn encode_token(token: &Continue) -> String {
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode_token(text: &str) -> Result<Continue> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    bytes
        .and_then(|b| String::from_utf8(b).ok())
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| Failure::bad_request("continue key is not valid: the token cannot be read"))
}
