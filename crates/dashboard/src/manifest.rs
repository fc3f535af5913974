//! Objects as YAML: changed ones and new ones.

use http::Method;
use serde_json::{Value, json};
use tripod_engine::ServiceUpdate;
use tripod_model::swarm::ServiceSpec;
use tripod_model::{Error, Result};

use crate::act::{Done, manager};
use crate::call::{Call, Ctx};
use crate::kinds::parts;
use crate::kube;
use crate::object::{Obj, text};
use crate::pages::edit;

/// The objects of a text in YAML.
fn documents(yaml: &str) -> Result<Vec<Value>> {
    use serde::Deserialize as _;
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).map_err(|e| Error::invalid(e).context("YAML"))?;
        match value {
            Value::Null => {}
            Value::Object(_) => found.push(value),
            _ => return Err(Error::invalid("each document has to be an object")),
        }
    }
    if found.is_empty() {
        return Err(Error::invalid("there is no object in the text"));
    }
    Ok(found)
}

/// Writes an object as it was edited; refused when it changed meanwhile.
pub(crate) async fn save(ctx: &Ctx, call: &Call, object: &Obj, page: String) -> Result<Done> {
    let text = call.field("yaml");
    let saved = async {
        let mut documents = documents(text)?;
        let (Some(value), 0) = (documents.pop(), documents.len()) else {
            return Err(Error::invalid("this page edits one object"));
        };
        for (pointer, own) in [
            ("/metadata/name", object.name()),
            ("/metadata/namespace", object.namespace()),
            ("/kind", object.kind()),
        ] {
            if crate::object::text(&value, pointer) != own {
                let field = pointer.trim_start_matches('/').replace('/', ".");
                return Err(Error::invalid(format_args!("this has to stay {own:?}")).at(field));
            }
        }
        if object.kind() == "SwarmService" {
            let spec: ServiceSpec = serde_json::from_value(value["spec"].clone())?;
            let version = text_revision(&value);
            return manager(ctx)?
                .service_update(object.name(), version, spec, ServiceUpdate::default())
                .await
                .map(drop);
        }
        kube::ask(
            ctx,
            Method::PUT,
            &kube::path(object),
            "application/json",
            value.to_string(),
        )
        .await
        .map(drop)
    };
    match saved.await {
        Ok(()) => Ok(Done::Go(page)),
        Err(e) => {
            let again = edit::page(ctx, object, Some(text.to_owned()), &explain(&e));
            Ok(Done::Again(Box::new(again)))
        }
    }
}

fn text_revision(value: &Value) -> u64 {
    text(value, "/metadata/resourceVersion").parse().unwrap_or(0)
}

fn explain(error: &Error) -> String {
    match &error.field {
        Some(field) => format!("{field}: {error}"),
        None => error.to_string(),
    }
}

/// Applies the objects of a text, one after the other.
pub(crate) async fn create(ctx: &Ctx, call: &Call) -> Result<Done> {
    let text = call.field("yaml");
    let mut last = ctx.ui.url(&[]);
    let applied = async {
        for value in documents(text)? {
            last = apply(ctx, value).await?;
        }
        Ok(())
    };
    match applied.await {
        Ok(()) => Ok(Done::Go(last)),
        Err(e) => Ok(Done::Again(Box::new(edit::new(
            ctx,
            Some(text.to_owned()),
            &explain(&e),
        )))),
    }
}

/// Applies an object and gives the address of its page.
async fn apply(ctx: &Ctx, mut value: Value) -> Result<String> {
    let (kind, name) = (
        text(&value, "/kind").to_owned(),
        text(&value, "/metadata/name").to_owned(),
    );
    if kind.is_empty() || name.is_empty() {
        return Err(Error::invalid("an object needs a kind and a name"));
    }
    let api_version = text(&value, "/apiVersion").to_owned();
    let (plural, namespaced) = plural_of(ctx, &api_version, &kind).await?;
    if namespaced && text(&value, "/metadata/namespace").is_empty() {
        let namespace = ctx.namespace().unwrap_or("default");
        value["metadata"]["namespace"] = json!(namespace);
    }
    let namespace = text(&value, "/metadata/namespace").to_owned();
    let collection = kube::collection(&api_version, &plural, &namespace);
    let body = value.to_string();
    match kube::ask(ctx, Method::POST, &collection, "application/json", body.clone()).await {
        // It is there already: what the text says is applied to it.
        Err(e) if e.kind == tripod_model::ErrorKind::Conflict => {
            let path = format!("{collection}/{name}?force=true");
            kube::ask(ctx, Method::PATCH, &path, "application/apply-patch+yaml", body).await?;
        }
        other => drop(other?),
    }
    let resource = match api_version.split_once('/') {
        Some((group, _)) => format!("{plural}.{group}"),
        None => plural,
    };
    Ok(ctx.ui.url(&parts(&resource, &namespace, &name)))
}

/// What the API calls objects of a kind, and whether they live in namespaces.
async fn plural_of(ctx: &Ctx, api_version: &str, kind: &str) -> Result<(String, bool)> {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let path = format!("/{root}/{api_version}");
    let list = kube::ask(ctx, Method::GET, &path, "application/json", "").await?;
    let found = crate::object::list(&list, "/resources")
        .iter()
        .find(|r| r["kind"] == kind && !text(r, "/name").contains('/'));
    found
        .map(|r| (text(r, "/name").to_owned(), r["namespaced"] == true))
        .ok_or_else(|| Error::invalid(format_args!("no kind {kind:?} in {api_version:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hold_one_or_more_objects() {
        assert_eq!(documents("a: 1\n---\nb: 2\n---\n").unwrap().len(), 2);
        for bad in ["", "- 1", "a: [", "text"] {
            assert!(documents(bad).is_err(), "{bad}");
        }
    }
}
