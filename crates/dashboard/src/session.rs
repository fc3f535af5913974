//! Log-in for those who come from elsewhere: a token or a client certificate of somebody who may administer the cluster.
//!
//! A token is asked for once and kept here, in memory; the browser gets a number that cannot be guessed. A session ends
//! when it is not used, at the latest after some hours, when its user logs out, and when the token ceases to be good.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use tripod_edge::{Peer, Response};
use tripod_model::{Error, Result};

use crate::call::Call;
use crate::guard::cookie;
use crate::kube::Identity;
use crate::view::login_page;
use crate::{Inner, reply, router};

/// A session that is not used for so long ends.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// No session lasts longer.
const WHOLE: Duration = Duration::from_secs(12 * 3600);
/// After so long it is asked again whether an identity may administer the cluster.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest token that is taken.
const MAX_TOKEN: usize = 16 << 10;

/// Who has logged in.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    who: Identity,
    begun: Instant,
    used: Instant,
    asked: Instant,
}

impl Session {
    fn new(who: Identity, now: Instant) -> Self {
        Self {
            who,
            begun: now,
            used: now,
            asked: now,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) > IDLE || now.duration_since(self.begun) > WHOLE
    }
}

/// What is known of a session.
#[derive(Debug, PartialEq)]
enum Standing {
    Good,
    /// Whether it still is must be asked.
    Ask(Identity),
    None,
}

impl Sessions {
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, Session>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, id: String, who: Identity, now: Instant) {
        self.change(|all| {
            all.retain(|_, s| !s.is_over(now));
            all.insert(id, Session::new(who, now));
        });
    }

    fn end(&self, id: &str) {
        self.change(|all| all.remove(id));
    }

    /// A session that is used.
    fn standing(&self, id: &str, now: Instant) -> Standing {
        self.change(|all| {
            let Some(session) = all.get_mut(id) else {
                return Standing::None;
            };
            if session.is_over(now) {
                all.remove(id);
                return Standing::None;
            }
            session.used = now;
            match now.duration_since(session.asked) > AGAIN {
                true => Standing::Ask(session.who.clone()),
                false => Standing::Good,
            }
        })
    }

    fn asked(&self, id: &str, now: Instant) {
        self.change(|all| {
            if let Some(session) = all.get_mut(id) {
                session.asked = now;
            }
        });
    }
}

/// How a request is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// By a session, which can be ended.
    Session,
    /// By a certificate.
    Certificate,
}

async fn may(inner: &Inner, who: Identity) -> Result<bool> {
    match &inner.kube {
        Some(kube) => kube.may_administer(who).await,
        None => Ok(false),
    }
}

/// Whether a request is somebody's who may administer the cluster.
pub(crate) async fn admitted(inner: &Inner, call: &Call, peer: &Peer) -> Option<Admitted> {
    let now = Instant::now();
    if let Some(certificate) = &peer.certificate {
        let id = format!(
            "certificate {}",
            hex::encode(ring::digest::digest(&ring::digest::SHA256, certificate))
        );
        let who = Identity::Certificate(certificate.clone());
        match inner.sessions.standing(&id, now) {
            Standing::Good => return Some(Admitted::Certificate),
            // Without an answer nobody is let in.
            _ if may(inner, who.clone()).await.unwrap_or(false) => {
                inner.sessions.keep(id, who, now);
                return Some(Admitted::Certificate);
            }
            _ => inner.sessions.end(&id),
        }
    }
    let id = cookie(&call.headers, &inner.guard.session_cookie()).filter(|id| id.len() == 64)?;
    match inner.sessions.standing(&id, now) {
        Standing::Good => Some(Admitted::Session),
        Standing::Ask(who) if may(inner, who.clone()).await.unwrap_or(false) => {
            inner.sessions.asked(&id, now);
            Some(Admitted::Session)
        }
        _ => {
            inner.sessions.end(&id);
            None
        }
    }
}

/// The page that asks for a token.
pub(crate) fn ask(inner: &Inner, call: &Call, visitor: &str, problem: &str) -> Response {
    let ctx = router::context(inner, call, visitor, None);
    let status = match problem {
        "" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::FORBIDDEN,
    };
    reply::html(status, login_page(&ctx.ui, ctx.t(problem)), false)
}

/// Takes a token.
pub(crate) async fn log_in(inner: &Inner, call: &Call, visitor: &str) -> Response {
    if let Err(why) = inner.guard.check(&call.headers, call.token()) {
        return ask(inner, call, visitor, why);
    }
    let token = call.field("token").trim().to_owned();
    let visible = token.bytes().all(|b| b.is_ascii_graphic());
    if token.is_empty() || token.len() > MAX_TOKEN || !visible {
        return ask(inner, call, visitor, "This is no token.");
    }
    let who = Identity::Token(token);
    match may(inner, who.clone()).await {
        Ok(true) => {}
        Ok(false) => {
            return ask(
                inner,
                call,
                visitor,
                "This identity may not administer the cluster: it needs the role cluster-admin.",
            );
        }
        Err(Error {
            kind: tripod_model::ErrorKind::Unauthorized,
            ..
        }) => {
            return ask(inner, call, visitor, "The token is not good, or not any more.");
        }
        Err(e) => {
            tracing::warn!("dashboard: a token cannot be checked: {e}");
            return ask(
                inner,
                call,
                visitor,
                "The cluster cannot tell now whether the token is good.",
            );
        }
    }
    let id = hex::encode(rand::random::<[u8; 32]>());
    inner.sessions.keep(id.clone(), who, Instant::now());
    let mut response = reply::redirect(&format!("{}/", inner.options.base));
    reply::set_cookie(
        &mut response,
        &inner.guard.line(&inner.guard.session_cookie(), &id),
    );
    // Forms from before the log-in are of another visitor.
    let (_, line) = inner.guard.visitor(&http::HeaderMap::new(), &inner.options.base);
    if let Some(line) = line {
        reply::set_cookie(&mut response, &line);
    }
    response
}

/// Ends the session.
pub(crate) fn log_out(inner: &Inner, call: &Call, visitor: &str) -> Response {
    if let Err(why) = inner.guard.check(&call.headers, call.token()) {
        return ask(inner, call, visitor, why);
    }
    if let Some(id) = cookie(&call.headers, &inner.guard.session_cookie()) {
        inner.sessions.end(&id);
    }
    let mut response = reply::redirect(&format!("{}/", inner.options.base));
    let line = format!(
        "{}; Max-Age=0",
        inner.guard.line(&inner.guard.session_cookie(), "")
    );
    reply::set_cookie(&mut response, &line);
    response.headers_mut().insert(
        header::HeaderName::from_static("clear-site-data"),
        header::HeaderValue::from_static("\"cache\""),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let who = || Identity::Token("t".into());
        let after = |d: Duration| now + d;
        sessions.keep("a".into(), who(), now);
        assert_eq!(sessions.standing("a", now), Standing::Good);
        assert_eq!(sessions.standing("b", now), Standing::None);
        let later = after(AGAIN + Duration::from_secs(1));
        assert_eq!(sessions.standing("a", later), Standing::Ask(who()));
        sessions.asked("a", later);
        assert_eq!(sessions.standing("a", later), Standing::Good);
        assert_eq!(
            sessions.standing("a", later + IDLE + Duration::from_secs(1)),
            Standing::None
        );
        sessions.keep("c".into(), who(), now);
        let mut at = now;
        while at < after(WHOLE) {
            at += IDLE;
            sessions.standing("c", at);
        }
        assert_eq!(
            sessions.standing("c", at + Duration::from_secs(1)),
            Standing::None
        );
        sessions.keep("d".into(), who(), now);
        sessions.end("d");
        assert_eq!(sessions.standing("d", now), Standing::None);
    }
}
