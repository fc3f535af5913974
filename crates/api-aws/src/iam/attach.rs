//! Policies of users, groups and roles: inline ones, and managed ones that are attached.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tripod_engine::Stored;
use tripod_engine::aws::user_object;
use tripod_model::aws::{Group, Role, User};

use super::groups::group_object;
use super::{document, document_of, encoded, listed, no_such, role_object};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::Get as _;

/// Managed policies that one may have.
const ATTACHED: usize = 10;

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Users, groups and roles.
trait Holder: Stored {
    const WHAT: &'static str;
    const MEMBER: &'static str;
    fn object(name: &str) -> String;
    fn inline(&mut self) -> &mut BTreeMap<String, String>;
    fn attached(&mut self) -> &mut Vec<String>;
}

impl Holder for User {
    const WHAT: &'static str = "user";
    const MEMBER: &'static str = "UserName";
    fn object(name: &str) -> String {
        user_object(name)
    }
    fn inline(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.spec.inline
    }
    fn attached(&mut self) -> &mut Vec<String> {
        &mut self.spec.attached
    }
}

impl Holder for Role {
    const WHAT: &'static str = "role";
    const MEMBER: &'static str = "RoleName";
    fn object(name: &str) -> String {
        role_object(name)
    }
    fn inline(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.spec.inline
    }
    fn attached(&mut self) -> &mut Vec<String> {
        &mut self.spec.attached
    }
}

impl Holder for Group {
    const WHAT: &'static str = "group";
    const MEMBER: &'static str = "GroupName";
    fn object(name: &str) -> String {
        group_object(name)
    }
    fn inline(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.spec.inline
    }
    fn attached(&mut self) -> &mut Vec<String> {
        &mut self.spec.attached
    }
}

async fn edit<H: Holder>(
    call: &Call,
    input: &Value,
    change: impl Fn(&mut H) -> Result<(), Fault> + Send + Sync,
) -> Reply {
    let name = input.text(H::MEMBER);
    call.edit("", &H::object(name), || no_such(H::WHAT, name), change)
        .await?;
    Ok(Value::Null)
}

fn find<H: Holder>(call: &Call, input: &Value) -> Result<H, Fault> {
    let name = input.text(H::MEMBER);
    let holder = call.state().get::<H>("", &H::object(name))?;
    holder.ok_or_else(|| no_such(H::WHAT, name))
}

async fn put<H: Holder>(call: Call, input: Value) -> Reply {
    document(input.text("PolicyDocument"))?;
    edit(&call, &input, |h: &mut H| {
        let (name, text) = (input.text("PolicyName"), input.text("PolicyDocument"));
        h.inline().insert(name.to_owned(), text.to_owned());
        Ok(())
    })
    .await
}

fn no_inline<H: Holder>(input: &Value) -> Fault {
    let (policy, name) = (input.text("PolicyName"), input.text(H::MEMBER));
    let text = format!("The {} policy with name {policy} cannot be found.", H::WHAT);
    Fault::new("NoSuchEntityException", text + &format!(" ({name})"))
}

async fn get<H: Holder>(call: Call, input: Value) -> Reply {
    let mut holder: H = find(&call, &input)?;
    let policy = input.text("PolicyName");
    let text = holder
        .inline()
        .get(policy)
        .ok_or_else(|| no_inline::<H>(&input))?;
    Ok(json!({ H::MEMBER: input.text(H::MEMBER), "PolicyName": policy, "PolicyDocument": encoded(text) }))
}

async fn delete<H: Holder>(call: Call, input: Value) -> Reply {
    edit(&call, &input, |h: &mut H| {
        let gone = h.inline().remove(input.text("PolicyName"));
        gone.map(drop).ok_or_else(|| no_inline::<H>(&input))
    })
    .await
}

async fn list<H: Holder>(call: Call, input: Value) -> Reply {
    let mut holder: H = find(&call, &input)?;
    let names = holder.inline().keys().map(|k| k.as_str().into()).collect();
    listed(&input, "PolicyNames", names)
}

async fn attach<H: Holder>(call: Call, input: Value) -> Reply {
    let arn = input.text("PolicyArn").to_owned();
    if document_of(&call.state(), &arn)?.is_none() {
        let text = format!("Policy {arn} does not exist or is not attachable.");
        return Err(Fault::new("NoSuchEntityException", text));
    }
    edit(&call, &input, |h: &mut H| {
        let attached = h.attached();
        if attached.len() >= ATTACHED && !attached.contains(&arn) {
            let text = format!(
                "Cannot exceed quota for PoliciesPer{}: {ATTACHED}",
                capital(H::WHAT)
            );
            return Err(Fault::new("LimitExceededException", text));
        }
        if !attached.contains(&arn) {
            attached.push(arn.clone());
        }
        Ok(())
    })
    .await
}

async fn detach<H: Holder>(call: Call, input: Value) -> Reply {
    let arn = input.text("PolicyArn").to_owned();
    edit(&call, &input, |h: &mut H| {
        let before = h.attached().len();
        h.attached().retain(|a| *a != arn);
        if h.attached().len() == before {
            return Err(Fault::new(
                "NoSuchEntityException",
                format!("Policy {arn} was not found."),
            ));
        }
        Ok(())
    })
    .await
}

async fn attached<H: Holder>(call: Call, input: Value) -> Reply {
    let mut holder: H = find(&call, &input)?;
    let prefix = input.maybe("PathPrefix").unwrap_or("/").to_owned();
    let below = |arn: &&String| {
        let path = arn.split_once(":policy").map_or("/", |(_, rest)| rest);
        path.starts_with(&prefix)
    };
    let items = holder.attached().iter().filter(below).map(|arn| {
        let name = arn.rsplit('/').next().unwrap_or_default();
        json!({ "PolicyName": name, "PolicyArn": arn })
    });
    listed(&input, "AttachedPolicies", items.collect())
}

macro_rules! all {
    ($($user:ident $group:ident $role:ident $of:ident;)*) => { $(
        pub(super) async fn $user(call: Call, input: Value) -> Reply {
            $of::<User>(call, input).await
        }
        pub(super) async fn $group(call: Call, input: Value) -> Reply {
            $of::<Group>(call, input).await
        }
        pub(super) async fn $role(call: Call, input: Value) -> Reply {
            $of::<Role>(call, input).await
        }
    )* };
}

all! {
    put_user put_group put_role put;
    get_user get_group get_role get;
    delete_user delete_group delete_role delete;
    list_user list_group list_role list;
    attach_user attach_group attach_role attach;
    detach_user detach_group detach_role detach;
    attached_user attached_group attached_role attached;
}
