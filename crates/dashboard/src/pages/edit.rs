//! An object as YAML, to be read and changed; new ones from YAML.

use serde_json::Value;

use super::detail;
use crate::call::Ctx;
use crate::object::Obj;
use crate::view::{Page, Section, Tone};

/// What is offered as a start on the page for new objects.
const EXAMPLE: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
spec:
  replicas: 2
  selector:
    matchLabels: {app: hello}
  template:
    metadata:
      labels: {app: hello}
    spec:
      containers:
      - name: web
        image: nginx
        ports:
        - containerPort: 80
";

/// The page of an object's YAML. A secret's values are left out of what is shown unless they were asked for.
pub(crate) fn page(ctx: &Ctx, object: &Obj, text: Option<String>, refusal: &str) -> Page {
    let mut page = detail::frame(ctx, object, "yaml");
    if !refusal.is_empty() {
        page.sections.push(refused(ctx, refusal));
    }
    let key = &object.stored.key;
    let mut path = crate::kinds::parts(key.kind.as_str(), &key.namespace, &key.name);
    path.push("yaml");
    let text = text.unwrap_or_else(|| yaml(object));
    page.sections.push(Section::Editor(ctx.ui.url(&path), text));
    page
}

/// The page for new objects.
pub(crate) fn new(ctx: &Ctx, text: Option<String>, refusal: &str) -> Page {
    let mut sections = Vec::new();
    if !refusal.is_empty() {
        sections.push(refused(ctx, refusal));
    }
    sections.push(Section::Editor(
        ctx.ui.url(&["new"]),
        text.unwrap_or_else(|| EXAMPLE.to_owned()),
    ));
    Page {
        title: ctx.t("Create from YAML").to_owned(),
        sections,
        ..Page::default()
    }
}

fn refused(ctx: &Ctx, refusal: &str) -> Section {
    Section::Notice(
        Tone::Bad,
        ctx.t("This was refused").to_owned(),
        refusal.to_owned(),
    )
}

/// An object as YAML, without the bookkeeping of who manages which field.
fn yaml(object: &Obj) -> String {
    let mut value = object.value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    serde_yaml::to_string(&value).unwrap_or_else(|e| e.to_string())
}
