//! The server about itself: version, health, metrics.

use http::StatusCode;
use serde_json::json;

use crate::call::Call;
use crate::reply::{self, Reply};

/// `/version`.
pub(crate) fn version(call: &Call) -> Reply {
    let version = &call.shared.about().version;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    let before = minor.parse::<u32>().unwrap_or(0).saturating_sub(1).to_string();
    Ok(reply::json(&json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": before,
        "gitVersion": version,
        "gitCommit": option_env!("TRIPOD_COMMIT").unwrap_or("0000000000000000000000000000000000000000"),
        "gitTreeState": "clean",
        "buildDate": option_env!("TRIPOD_BUILD_TIME").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", arch()),
    })))
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/healthz`, `/livez`, `/readyz`, and their single checks.
pub(crate) fn health(call: &Call, segments: &[&str]) -> Reply {
    // That this is answered at all shows that the process lives; the store is what else can fail.
    let store = call.manager.db().cluster().leader().is_some();
    let checks = [
        ("ping", true),
        ("etcd", store),
        ("poststarthook/rbac/bootstrap-roles", call.shared.bootstrapped()),
    ];
    let which = segments[0];
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    if segments.len() > 1 {
        let name = segments[1..].join("/");
        return match checks.iter().find(|(n, _)| *n == name) {
            Some((_, true)) => Ok(reply::text("ok")),
            Some(_) => Ok(failed(&format!("internal server error: {name} failed"))),
            None => Err(tripod_schema::Failure::no_page()),
        };
    }
    let counted = checks
        .iter()
        .filter(|(n, _)| !excluded.contains(n) && (which != "livez" || !n.contains("poststarthook")));
    let mut lines = String::new();
    let mut healthy = true;
    for (name, ok) in counted {
        healthy &= ok;
        let sign = if *ok { '+' } else { '-' };
        let word = if *ok { "ok" } else { "failed: reason withheld" };
        lines.push_str(&format!("[{sign}]{name} {word}\n"));
    }
    if healthy && !call.query.flag("verbose") {
        return Ok(reply::text("ok"));
    }
    let verdict = if healthy { "passed" } else { "failed" };
    lines.push_str(&format!("{which} check {verdict}\n"));
    Ok(if healthy {
        reply::text(lines)
    } else {
        failed(&lines)
    })
}

fn failed(text: &str) -> tripod_edge::Response {
    reply::bytes(
        StatusCode::INTERNAL_SERVER_ERROR,
        "text/plain; charset=utf-8",
        text.to_owned(),
    )
}
