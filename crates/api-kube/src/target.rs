//! What a path names: a kind, an object, a subresource.

use http::Method;
use tripod_schema::failure::Result;
use tripod_schema::{Failure, Kind, Sub, registry};

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// Empty: all namespaces, or a kind of the whole cluster.
    pub(crate) namespace: String,
    /// Empty: the collection.
    pub(crate) name: String,
    pub(crate) sub: Option<&'static Sub>,
    /// What follows the subresource (of a proxy), with its slash.
    pub(crate) rest: String,
    /// The old form of a watch: `/api/v1/watch/…`.
    pub(crate) watch: bool,
}

/// The target of the path's segments, decoded; `None` where the path names no kind (discovery, health).
pub(crate) fn target(segments: &[&str], path: &str) -> Result<Option<Target>> {
    let (group, version, rest) = match segments {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(None),
    };
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let find = |plural: &str| {
        registry()
            .find(group, version, plural)
            .ok_or_else(Failure::no_page)
    };
    let (kind, namespace, after): (_, &str, &[&str]) = match rest {
        // A namespace itself, and what hangs below it.
        ["namespaces"] => (find("namespaces")?, "", &[]),
        ["namespaces", _] => (find("namespaces")?, "", &rest[1..]),
        ["namespaces", _, "status" | "finalize"] => (find("namespaces")?, "", &rest[1..]),
        ["namespaces", namespace, plural, after @ ..] => {
            let kind = find(plural)?;
            if !kind.namespaced {
                return Err(Failure::no_page());
            }
            (kind, *namespace, after)
        }
        [plural, after @ ..] => {
            let kind = find(plural)?;
            if kind.namespaced && !after.is_empty() {
                return Err(Failure::no_page());
            }
            (kind, "", after)
        }
        [] => return Ok(None),
    };
    let name = after.first().copied().unwrap_or_default();
    let sub = match after.get(1) {
        None => None,
        Some(name) => Some(kind.sub(name).ok_or_else(Failure::no_page)?),
    };
    if after.len() > 2 && sub.is_none_or(|s| s.name != "proxy") {
        return Err(Failure::no_page());
    }
    let rest = sub.filter(|s| s.name == "proxy").and_then(|_| {
        let (_, rest) = path.split_once("/proxy")?;
        Some(rest.to_owned())
    });
    Ok(Some(Target {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        sub,
        rest: rest.unwrap_or_default(),
        watch,
    }))
}

/// The verb of a request, as authorisation names it.
pub(crate) fn verb(method: &Method, target: &Target, watching: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if watching => "watch",
        Method::GET | Method::HEAD if target.name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        // A question that the server behind the proxy answers.
        Method::OPTIONS if target.sub.is_some_and(|s| s.name == "proxy") => "get",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<Option<Target>> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        target(&segments, path)
    }

    #[test]
    fn paths() {
        let t = of("/api/v1/namespaces/default/pods/a/log").unwrap().unwrap();
        assert_eq!(
            (t.kind.plural, &*t.namespace, &*t.name, t.sub.unwrap().name),
            ("pods", "default", "a", "log")
        );
        let t = of("/apis/apps/v1/deployments").unwrap().unwrap();
        assert_eq!((t.kind.plural, &*t.namespace, &*t.name), ("deployments", "", ""));
        let t = of("/api/v1/namespaces/x/status").unwrap().unwrap();
        assert_eq!(
            (t.kind.plural, &*t.name, t.sub.unwrap().name),
            ("namespaces", "x", "status")
        );
        let t = of("/api/v1/namespaces/d/services/s:80/proxy/a/b")
            .unwrap()
            .unwrap();
        assert_eq!((&*t.name, &*t.rest), ("s:80", "/a/b"));
        let t = of("/api/v1/watch/pods").unwrap().unwrap();
        assert!(t.watch);
        assert!(of("/api/v1").unwrap().is_none());
        for bad in [
            "/api/v1/nope",
            "/api/v2/pods",
            "/api/v1/pods/a",
            "/api/v1/namespaces/d/nodes",
            "/api/v1/namespaces/d/pods/a/nope",
            "/api/v1/namespaces/d/pods/a/log/x",
        ] {
            assert_eq!(of(bad).unwrap_err().code, 404, "{bad}");
        }
    }
}
