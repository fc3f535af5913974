//! Account settings.

use serde_json::{Value, json};
use tripod_engine::aws::uid;
use tripod_model::aws::{AccountSettings, AccountSettingsSpec};
use tripod_model::ecs::object_name;

use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, page};

/// Names, the value that holds until somebody sets another, and those that can be set.
const SETTINGS: &[(&str, &str, &[&str])] = &[
    ("awsvpcTrunking", "disabled", &["enabled", "disabled"]),
    (
        "containerInsights",
        "disabled",
        &["enabled", "disabled", "enhanced"],
    ),
    ("containerInstanceLongArnFormat", "enabled", &["enabled"]),
    (
        "defaultLogDriverMode",
        "non-blocking",
        &["blocking", "non-blocking"],
    ),
    ("dualStackIPv6", "enabled", &["enabled", "disabled"]),
    ("fargateEventWindows", "disabled", &["enabled", "disabled"]),
    ("fargateFIPSMode", "disabled", &["enabled", "disabled"]),
    ("fargateTaskRetirementWaitPeriod", "7", &["0", "7", "14"]),
    ("guardDutyActivate", "off", &["on", "off"]),
    ("serviceLongArnFormat", "enabled", &["enabled"]),
    ("tagResourceAuthorization", "off", &["on", "off"]),
    ("taskLongArnFormat", "enabled", &["enabled"]),
];

fn object(region: &str, principal: &str) -> String {
    object_name(&format!("account-settings/{region}"), principal)
}

fn principal(call: &Call, input: &Value) -> String {
    input
        .maybe("principalArn")
        .unwrap_or(&call.principal.arn)
        .to_owned()
}

fn known(name: &str) -> Result<&'static (&'static str, &'static str, &'static [&'static str]), Fault> {
    let found = SETTINGS.iter().find(|(n, ..)| *n == name);
    found.ok_or_else(|| Fault::parameter(format!("name: {name} is no account setting.")))
}

fn value_of(call: &Call, principal: &str, name: &str) -> Result<Option<String>, Fault> {
    let settings = call
        .state()
        .get::<AccountSettings>("", &object(&call.region, principal))?;
    Ok(settings.and_then(|s| s.spec.values.get(name).cloned()))
}

fn shown(name: &str, value: &str, principal: &str) -> Value {
    let kind = if name == "guardDutyActivate" {
        "aws_managed"
    } else {
        "user"
    };
    json!({ "name": name, "value": value, "principalArn": principal, "type": kind })
}

pub(super) async fn list(call: Call, input: Value) -> Reply {
    let principal = principal(&call, &input);
    if let Some(name) = input.maybe("name") {
        known(name)?;
    }
    let effective = input.flag("effectiveSettings").unwrap_or(false);
    let mut items = Vec::new();
    for (name, default, _) in SETTINGS {
        if input.maybe("name").is_some_and(|wanted| wanted != *name) {
            continue;
        }
        let mut value = value_of(&call, &principal, name)?;
        if effective && value.is_none() {
            value = Some(value_of(&call, "default", name)?.unwrap_or_else(|| (*default).to_owned()));
        }
        if let Some(value) = value.filter(|v| input.maybe("value").is_none_or(|wanted| wanted == v)) {
            items.push(shown(name, &value, &principal));
        }
    }
    let size = usize::try_from(input.number("maxResults").unwrap_or(10)).unwrap_or(10);
    let (items, next) =
        page(items, input.maybe("nextToken"), size).ok_or_else(|| Fault::parameter("Invalid token"))?;
    Ok(json!({ "settings": items, "nextToken": next }))
}

async fn set(call: &Call, principal: &str, name: &str, value: Option<&str>) -> Result<(), Fault> {
    let spec = AccountSettingsSpec {
        region: call.region.clone(),
        principal: principal.to_owned(),
        ..AccountSettingsSpec::default()
    };
    let key = object(&call.region, principal);
    // It may be there already: then it is changed.
    let _ = call
        .db()
        .create(&AccountSettings::new(&key, uid(), call.now(), spec))
        .await;
    let gone = || Fault::new("ServerException", "the settings are gone").status(500);
    call.edit("", &key, gone, |s: &mut AccountSettings| {
        match value {
            Some(value) => s.spec.values.insert(name.to_owned(), value.to_owned()),
            None => s.spec.values.remove(name),
        };
        Ok(())
    })
    .await?;
    Ok(())
}

async fn put_for(call: Call, input: Value, principal: String) -> Reply {
    let (name, value) = (input.text("name"), input.text("value"));
    let (_, _, values) = known(name)?;
    if !values.contains(&value) {
        let text = format!("value: {name} takes {}, not '{value}'.", values.join(", "));
        return Err(Fault::parameter(text));
    }
    set(&call, &principal, name, Some(value)).await?;
    let told = if principal == "default" {
        format!("arn:aws:iam::{}:root", call.account())
    } else {
        principal
    };
    Ok(json!({ "setting": shown(name, value, &told) }))
}

pub(super) async fn put(call: Call, input: Value) -> Reply {
    let principal = principal(&call, &input);
    put_for(call, input, principal).await
}

pub(super) async fn put_default(call: Call, input: Value) -> Reply {
    put_for(call, input, "default".into()).await
}

pub(super) async fn delete(call: Call, input: Value) -> Reply {
    let name = input.text("name");
    let (_, default, _) = known(name)?;
    let principal = principal(&call, &input);
    set(&call, &principal, name, None).await?;
    let value = value_of(&call, "default", name)?.unwrap_or_else(|| (*default).to_owned());
    Ok(json!({ "setting": shown(name, &value, &principal) }))
}
