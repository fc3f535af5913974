//! A pod's logs and terminal.

use super::detail;
use crate::call::{Call, Ctx};
use crate::kinds::parts;
use crate::object::Obj;
use crate::streams::{containers, log_text, target};
use crate::view::{Page, Section, Tab, Tone};

/// The page of a pod's logs: the end of the log as text, which the script follows.
pub(crate) async fn logs(ctx: &Ctx, pod: &Obj, call: &Call) -> Page {
    let mut page = detail::frame(ctx, pod, "logs");
    page.sections.push(choices(ctx, pod, call, "logs"));
    match log_text(ctx, pod, call).await {
        Ok(text) => page
            .sections
            .push(Section::Log(stream(ctx, pod, call, "logs"), text)),
        Err(e) => page
            .sections
            .push(Section::Notice(Tone::Calm, e.to_string(), String::new())),
    }
    page
}

/// The page of a shell in a container.
pub(crate) fn terminal(ctx: &Ctx, pod: &Obj, call: &Call) -> Page {
    let mut page = detail::frame(ctx, pod, "terminal");
    page.sections.push(choices(ctx, pod, call, "terminal"));
    page.sections
        .push(Section::Terminal(stream(ctx, pod, call, "terminal")));
    page
}

fn address(ctx: &Ctx, pod: &Obj, more: &[&str], container: &str) -> String {
    let mut path = parts("pods", pod.namespace(), pod.name());
    path.extend(more);
    let url = ctx.ui.url(&path);
    let query: String = form_urlencoded::byte_serialize(container.as_bytes()).collect();
    format!("{url}?container={query}")
}

fn stream(ctx: &Ctx, pod: &Obj, call: &Call, part: &str) -> String {
    let mut url = address(ctx, pod, &[part, "stream"], &target(pod, call).container);
    if !call.query("previous").is_empty() {
        url.push_str("&previous=1");
    }
    if part == "terminal" {
        url.push_str("&csrf=");
        url.push_str(&ctx.ui.csrf);
    }
    url
}

/// The containers to choose from, and the run before.
fn choices(ctx: &Ctx, pod: &Obj, call: &Call, part: &str) -> Section {
    let chosen = target(pod, call).container;
    let previous = !call.query("previous").is_empty();
    let tab = |name: String| Tab {
        href: address(ctx, pod, &[part], &name),
        here: name == chosen && !previous,
        label: name,
    };
    let mut tabs: Vec<Tab> = containers(pod)
        .into_iter()
        .filter(|n| !n.is_empty())
        .map(tab)
        .collect();
    if part == "logs" && (previous || crate::status::restarts(pod) > 0) {
        tabs.push(Tab {
            label: ctx.t("Previous run").to_owned(),
            href: format!("{}&previous=1", address(ctx, pod, &["logs"], &chosen)),
            here: previous,
        });
    }
    Section::Choices(tabs)
}
