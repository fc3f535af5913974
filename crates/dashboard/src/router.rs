//! From a path to a page, with the guards before it.

use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tripod_edge::{Peer, Request, Response};
use tripod_engine::{Manager, Membership};
use tripod_model::{Error, ErrorKind, Time};
use tripod_store::State;

use crate::call::{Call, Ctx, LANG_COOKIE, THEME_COOKIE};
use crate::kinds::KindDef;
use crate::object::decoded;
use crate::pages::{detail, edit, listing, overview, running, search, workloads};
use crate::view::{Page, Section, Tone, Ui, render};
use crate::{Inner, act, guard, live, reply, session, streams};

/// Longest form that is taken.
const MAX_FORM: usize = 3 << 20;

/// Answers a request.
pub(crate) async fn handle(inner: &Arc<Inner>, request: Request, peer: &Peer) -> Response {
    let base = inner.options.base.as_str();
    let (parts, body) = request.into_parts();
    let Some(mut call) = Call::new(&parts, base) else {
        return reply::plain(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n");
    };
    // A name that another site had resolved to this machine's loopback; https knows whom it speaks with.
    if base.is_empty() && !inner.options.log_in && !guard::is_own_host(&call.headers, &parts.uri) {
        let text = "The dashboard answers to addresses and to localhost only.\n";
        return reply::plain(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", text);
    }
    if let [first, _, name] = call.path.as_slice()
        && first == "assets"
    {
        let found = reply::asset(name, gzip(&call));
        return found.unwrap_or_else(|| {
            reply::plain(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n")
        });
    }
    let (visitor, new_cookie) = inner.guard.visitor(&call.headers, base);
    let admitted = match inner.options.log_in {
        true => session::admitted(inner, &call, peer).await,
        false => None,
    };
    call.session = admitted == Some(session::Admitted::Session);
    let open = !inner.options.log_in || admitted.is_some();
    let mut response = match call.method {
        Method::GET | Method::HEAD if !open => session::ask(inner, &call, &visitor, ""),
        Method::GET | Method::HEAD => get(inner, &call, &visitor).await,
        Method::POST => match Limited::new(body, MAX_FORM).collect().await {
            Ok(body) => {
                call.set_body(body.to_bytes());
                match call
                    .path
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice()
                {
                    ["login"] if inner.options.log_in => session::log_in(inner, &call, &visitor).await,
                    ["logout"] if inner.options.log_in => session::log_out(inner, &call, &visitor),
                    ["preferences"] => post(inner, &call, &visitor).await,
                    _ if !open => session::ask(inner, &call, &visitor, ""),
                    _ => post(inner, &call, &visitor).await,
                }
            }
            Err(_) => problem(inner, &call, &visitor, &Error::invalid("The form is too long.")),
        },
        _ => {
            let mut response = problem(
                inner,
                &call,
                &visitor,
                &Error::invalid("This method is not for pages."),
            );
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
        }
    };
    if let Some(line) = new_cookie {
        reply::set_cookie(&mut response, &line);
    }
    response
}

fn gzip(call: &Call) -> bool {
    call.header(header::ACCEPT_ENCODING.as_str()).contains("gzip")
}

/// What pages are made from.
pub(crate) fn context(inner: &Inner, call: &Call, visitor: &str, manager: Option<Arc<Manager>>) -> Ctx {
    let state = manager
        .as_ref()
        .map_or_else(Arc::<State>::default, |m| m.db().cluster().read());
    let mut namespaces: Vec<(String, String)> = decoded(&state, "namespaces", None)
        .map(|n| (n.name().to_owned(), n.display().to_owned()))
        .collect();
    for (name, label) in [("swarm", "swarm".to_owned())]
        .into_iter()
        .map(|(n, l)| (n.to_owned(), l))
        .chain(
            decoded(&state, "ecsclusters.ecs.tripod.dev", None)
                .map(|c| (c.name().to_owned(), format!("ECS: {}", c.display()))),
        )
    {
        match namespaces.iter_mut().find(|(n, _)| *n == name) {
            Some(known) => known.1 = label,
            None => namespaces.push((name, label)),
        }
    }
    Ctx {
        state,
        manager,
        kube: inner.kube.clone(),
        readings: inner.readings.clone(),
        known: inner.known.clone(),
        tasks: OnceLock::new(),
        ui: Ui {
            base: inner.options.base.clone(),
            cluster: inner.options.cluster.clone(),
            lang: call.lang(),
            theme: call.theme(),
            csrf: inner.guard.token(visitor),
            namespace: call.query("namespace").to_owned(),
            namespaces,
            here: call.path.first().cloned().unwrap_or_default(),
            uri: call.uri.clone(),
            search: call.query("q").to_owned(),
            session: call.session,
            now: Time::now(),
        },
    }
}

async fn get(inner: &Arc<Inner>, call: &Call, visitor: &str) -> Response {
    let manager = match inner.engine.manager() {
        Ok(manager) => manager,
        Err(_) if call.path == ["live"] => return live::standing(&inner.engine),
        Err(_) => return without_manager(inner, call, visitor),
    };
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    if path == ["live"] {
        return live::follow(&manager, call);
    }
    if let [] | ["nodes", ..] | ["pods", _, _] = path.as_slice() {
        inner.readings.look(&manager).await;
    }
    let ctx = context(inner, call, visitor, Some(manager));
    if let ["pods", _, _, part @ ("logs" | "terminal"), rest @ ..] = path.as_slice() {
        return pod(inner, &ctx, call, visitor, part, rest).await;
    }
    match page(&ctx, call, &path) {
        Some(page) => show(&ctx, call, StatusCode::OK, &page),
        None => missing(&ctx, call),
    }
}

/// A pod's logs or terminal: the page, or what it shows as it goes on.
async fn pod(
    inner: &Arc<Inner>,
    ctx: &Ctx,
    call: &Call,
    visitor: &str,
    part: &str,
    rest: &[&str],
) -> Response {
    let Some((pod, _)) = detail::find(ctx, &call.path) else {
        return missing(ctx, call);
    };
    match (part, rest) {
        ("logs", []) => show(ctx, call, StatusCode::OK, &running::logs(ctx, &pod, call).await),
        ("logs", ["stream"]) => streams::log_events(ctx, &pod, call).await,
        ("terminal", []) => show(ctx, call, StatusCode::OK, &running::terminal(ctx, &pod, call)),
        // A shell is started: that is a change, though events can only be asked for by GET.
        ("terminal", ["stream"]) => match inner.guard.check(&call.headers, call.token()) {
            Ok(()) => streams::terminal_events(ctx, &inner.terminals, &pod, call).await,
            Err(why) => problem(inner, call, visitor, &Error::forbidden(why)),
        },
        _ => missing(ctx, call),
    }
}

/// The page of a path.
fn page(ctx: &Ctx, call: &Call, path: &[&str]) -> Option<Page> {
    let page = match path {
        [] => overview::page(ctx),
        ["workloads"] => workloads::page(ctx),
        ["config"] => listing::several(ctx, "Config", &["configmaps", "secrets", "serviceaccounts"]),
        ["storage"] => listing::several(
            ctx,
            "Storage",
            &["persistentvolumeclaims", "persistentvolumes", "storageclasses"],
        ),
        ["search"] => search::page(ctx, call.query("q")),
        ["new"] => edit::new(ctx, None, ""),
        ["objects"] => listing::kinds(ctx),
        ["objects", resource] => listing::other(ctx, resource),
        [slug] => listing::kind(ctx, KindDef::by_slug(slug)?, call.query("after")),
        _ => {
            let (object, rest) = detail::find(ctx, &call.path)?;
            match rest.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                [] => detail::page(ctx, &object),
                ["yaml"] => edit::page(ctx, &object, None, ""),
                _ => return None,
            }
        }
    };
    Some(page)
}

async fn post(inner: &Arc<Inner>, call: &Call, visitor: &str) -> Response {
    if let Err(why) = inner.guard.check(&call.headers, call.token()) {
        return problem(inner, call, visitor, &Error::forbidden(why));
    }
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    if path == ["preferences"] {
        return prefer(inner, call);
    }
    if let ["pods", _, _, "terminal", "input"] = path.as_slice() {
        return streams::type_in(&inner.terminals, call, call.body.clone()).await;
    }
    let manager = match inner.engine.manager() {
        Ok(manager) => manager,
        Err(e) => return problem(inner, call, visitor, &e),
    };
    let ctx = context(inner, call, visitor, Some(manager));
    match act::perform(&ctx, call).await {
        Ok(act::Done::Go(to)) => reply::redirect(&to),
        Ok(act::Done::Again(page)) => show(&ctx, call, StatusCode::UNPROCESSABLE_ENTITY, &page),
        Err(e) => problem(inner, call, visitor, &e),
    }
}

/// Remembers language and colours, and goes back to the page.
fn prefer(inner: &Inner, call: &Call) -> Response {
    let back = call.field("back");
    // Only to a page of this dashboard.
    let own = back.starts_with(&format!("{}/", inner.options.base))
        && !back.starts_with("//")
        && !back.contains('\\');
    let home = format!("{}/", inner.options.base);
    let mut response = reply::redirect(if own { back } else { &home });
    for (field, cookie, values) in [
        ("lang", LANG_COOKIE, ["en", "zh", ""]),
        ("theme", THEME_COOKIE, ["light", "dark", "system"]),
    ] {
        let value = call.field(field);
        if !value.is_empty() && values.contains(&value) {
            let line = format!("{cookie}={value}; Path={home}; Max-Age=31536000; HttpOnly; SameSite=Strict");
            reply::set_cookie(&mut response, &line);
        }
    }
    response
}

fn show(ctx: &Ctx, call: &Call, status: StatusCode, page: &Page) -> Response {
    let text = render(&ctx.ui, page, call.wants_fragment());
    reply::html(status, text, gzip(call))
}

fn missing(ctx: &Ctx, call: &Call) -> Response {
    let text = ctx
        .t("It may have been deleted, or replaced by another.")
        .to_owned();
    let page = Page {
        title: ctx.t("Not found").to_owned(),
        sections: vec![Section::Notice(
            Tone::Calm,
            ctx.t("There is nothing here").to_owned(),
            text,
        )],
        live: "*".to_owned(),
        ..Page::default()
    };
    show(ctx, call, StatusCode::NOT_FOUND, &page)
}

/// A page that says what went wrong.
fn problem(inner: &Inner, call: &Call, visitor: &str, error: &Error) -> Response {
    let ctx = context(inner, call, visitor, inner.engine.manager().ok());
    let status = match error.kind {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::NotFound | ErrorKind::Gone => StatusCode::NOT_FOUND,
        ErrorKind::Conflict | ErrorKind::OutOfSequence | ErrorKind::AlreadyExists => StatusCode::CONFLICT,
        ErrorKind::Forbidden | ErrorKind::Unauthorized => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable | ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text = match &error.field {
        Some(field) => format!("{field}: {error}"),
        None => ctx.t(&error.message).to_owned(),
    };
    let page = Page {
        title: ctx.t("That did not work").to_owned(),
        sections: vec![Section::Notice(
            Tone::Bad,
            ctx.t("This was refused").to_owned(),
            text,
        )],
        ..Page::default()
    };
    show(&ctx, call, status, &page)
}

/// A daemon that cannot show a cluster says what to do.
fn without_manager(inner: &Inner, call: &Call, visitor: &str) -> Response {
    let ctx = context(inner, call, visitor, None);
    let info = inner.engine.info();
    let (title, text) = match inner.engine.membership() {
        Membership::Inactive | Membership::Pending => (
            ctx.t("This machine is in no cluster yet"),
            ctx.t("Make one with “tripod start” or “docker swarm init”, or join one; this page follows.")
                .to_owned(),
        ),
        Membership::Locked => (
            ctx.t("The cluster is locked"),
            ctx.t("Unlock it with “docker swarm unlock”.").to_owned(),
        ),
        Membership::Error => (ctx.t("The cluster's store cannot be used"), info.error.clone()),
        Membership::Active => (
            ctx.t("This node is a worker"),
            ctx.t("Ask the dashboard of a manager.").to_owned(),
        ),
    };
    let managers: Vec<String> = info.remote_managers.iter().map(|m| m.addr.clone()).collect();
    let text = format!("{text} {}", managers.join(", ")).trim_end().to_owned();
    let page = Page {
        title: ctx.t("Overview").to_owned(),
        sections: vec![Section::Notice(Tone::Calm, title.to_owned(), text)],
        live: "*".to_owned(),
        ..Page::default()
    };
    show(&ctx, call, StatusCode::OK, &page)
}
