//! Tokens of service accounts: JSON web tokens (ES256) signed with the cluster's key.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};
use tripod_engine::Manager;
use tripod_model::session::{Token, TokenRequest};
use tripod_model::{Error, Time};
use tripod_schema::Failure;
use tripod_schema::decode::format_time;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, text};
use tripod_store::{Key, State, Txn};

use crate::authn::{User, unauthorized};
use crate::server::Shared;

/// Who issues tokens, and for whom they are unless somebody else is named.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Where the key is kept: a kind that is not served.
const PLACE: (&str, &str) = ("keys.tripod.dev", "service-accounts");

/// The key that signs tokens.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    id: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.id)
    }
}

impl Signer {
    fn read(stored: &[u8]) -> Option<Self> {
        let object: Value = serde_json::from_slice(stored).ok()?;
        let der = STANDARD.decode(text(&object, &["spec", "key"])).ok()?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new()).ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(digest.as_ref());
        Some(Self { pair, id })
    }

    fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text.as_bytes())
            .map_err(Failure::internal)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// The claims of a token with a good signature.
    fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if text(&header, &["alg"]) != "ES256" {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// The public key as JSON web key.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .unwrap_or_default()
            .split_at(32.min(point.len() - 1));
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// The cluster's key; made when there is none.
pub(crate) async fn signer(shared: &Shared, manager: &Manager) -> Result<Arc<Signer>> {
    if let Some(signer) = shared.signer(manager.cluster_id()) {
        return Ok(signer);
    }
    let key = Key::cluster(PLACE.0, PLACE.1);
    let found = manager.state().get(&key).cloned();
    let stored = match found {
        Some(stored) => stored,
        None => {
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(Failure::internal)?;
            let object = json!({
                "apiVersion": "tripod.dev/v1",
                "kind": "Key",
                "metadata": {"name": PLACE.1, "uid": crate::objects::new_uid()},
                "spec": {"key": STANDARD.encode(der.as_ref())},
            });
            let txn = Txn::new().create(key.clone(), object.to_string(), Vec::new());
            // Another manager may have been faster: then its key counts.
            let _ = manager.write(txn).await;
            let state = manager.state();
            state
                .get(&key)
                .cloned()
                .ok_or_else(|| Failure::unavailable("the key of tokens is not there yet"))?
        }
    };
    let signer =
        Signer::read(&stored.bytes).ok_or_else(|| Failure::internal("the key of tokens cannot be read"))?;
    let signer = Arc::new(signer);
    shared.set_signer(manager.cluster_id(), signer.clone());
    Ok(signer)
}

/// A token that is asked for.
pub(crate) struct Wish<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) account_uid: &'a str,
    pub(crate) audiences: &'a [String],
    pub(crate) seconds: i64,
    /// Kind, name and uid of what it is bound to.
    pub(crate) bound: Option<(String, String, String)>,
    /// Name and uid of the secret, made at the same time, that holds the token.
    pub(crate) kept_in: Option<(String, String)>,
}

/// Issues a token; also until when it holds.
pub(crate) async fn issue(shared: &Shared, manager: &Manager, wish: &Wish<'_>) -> Result<(String, String)> {
    let now = Time::now();
    let expires = now + jiff::SignedDuration::from_secs(wish.seconds);
    let mut kubernetes = json!({
        "namespace": wish.namespace,
        "serviceaccount": {"name": wish.account, "uid": wish.account_uid},
    });
    if let Some((name, uid)) = &wish.kept_in {
        kubernetes["secret"] = json!({"name": name, "uid": uid});
    }
    if let Some((kind, name, uid)) = &wish.bound {
        bind(&manager.state(), wish, (kind, name, uid), &mut kubernetes)?;
    }
    let audiences = if wish.audiences.is_empty() {
        json!([ISSUER])
    } else {
        json!(wish.audiences)
    };
    let claims = json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{}:{}", wish.namespace, wish.account),
        "aud": audiences,
        "exp": expires.as_second(),
        "iat": now.as_second(),
        "nbf": now.as_second(),
        "jti": crate::objects::new_uid(),
        "kubernetes.io": kubernetes,
    });
    let token = signer(shared, manager).await?.sign(&claims)?;
    Ok((token, format_time(expires, false)))
}

fn bind(
    state: &State,
    wish: &Wish<'_>,
    (kind, name, uid): (&str, &str, &str),
    claims: &mut Value,
) -> Result<()> {
    let (plural, namespace) = match kind {
        "Pod" => ("pods", wish.namespace),
        "Secret" => ("secrets", wish.namespace),
        _ => ("nodes", ""),
    };
    let stored = state
        .get(&Key::new(plural, namespace, name))
        .ok_or_else(|| Failure::not_found_named("", plural, name))?;
    if !uid.is_empty() && uid != &*stored.uid {
        return Err(Failure::new(
            409,
            "Conflict",
            format_args!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    claims[kind.to_lowercase()] = json!({"name": name, "uid": *stored.uid});
    if kind == "Pod" {
        let pod: Value = serde_json::from_slice(&stored.bytes).unwrap_or_default();
        let account = text(&pod, &["spec", "serviceAccountName"]);
        if account != wish.account {
            return Err(Failure::bad_request(format_args!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                wish.account
            )));
        }
        let node = text(&pod, &["spec", "nodeName"]);
        if let Some(stored) = state.get(&Key::cluster("nodes", node)) {
            claims["node"] = json!({"name": node, "uid": *stored.uid});
        }
    }
    Ok(())
}

/// The user of a token, if it holds for one of `audiences` (empty: the API server); also for which of them.
pub(crate) async fn user(
    shared: &Shared,
    manager: &Manager,
    token: &str,
    audiences: &[String],
) -> Result<(User, Vec<String>)> {
    let claims = signer(shared, manager)
        .await?
        .verify(token)
        .ok_or_else(unauthorized)?;
    let now = Time::now().as_second();
    let number = |name: &str| claims[name].as_i64().unwrap_or(0);
    if claims["iss"] != ISSUER || number("exp") <= now || number("nbf") > now + 10 {
        return Err(unauthorized());
    }
    let wanted = if audiences.is_empty() {
        vec![ISSUER.to_owned()]
    } else {
        audiences.to_vec()
    };
    let met: Vec<String> = wanted
        .into_iter()
        .filter(|a| list(&claims, &["aud"]).iter().any(|c| c == a))
        .collect();
    if met.is_empty() {
        return Err(unauthorized());
    }
    let own = &claims["kubernetes.io"];
    let state = manager.state();
    let namespace = text(own, &["namespace"]);
    let (name, uid) = (
        text(own, &["serviceaccount", "name"]),
        text(own, &["serviceaccount", "uid"]),
    );
    let lives = |plural: &str, namespace: &str, member: &str| {
        let Some(bound) = own.get(member) else { return true };
        let key = Key::new(plural, namespace, text(bound, &["name"]));
        state.get(&key).is_some_and(|o| *o.uid == *text(bound, &["uid"]))
    };
    let account = lives("serviceaccounts", namespace, "serviceaccount");
    if !account || !lives("pods", namespace, "pod") || !lives("secrets", namespace, "secret") {
        return Err(unauthorized());
    }
    let mut user = User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        ..User::default()
    };
    let mut extra = |key: &str, value: String| {
        user.extra
            .insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    extra("credential-id", format!("JTI={}", text(&claims, &["jti"])));
    for member in ["pod", "node"] {
        if let Some(bound) = own.get(member) {
            extra(&format!("{member}-name"), text(bound, &["name"]).to_owned());
            extra(&format!("{member}-uid"), text(bound, &["uid"]).to_owned());
        }
    }
    Ok((user.proven(), met))
}

/// Gives nodes the tokens of their pods.
pub(crate) struct Issuer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) manager: std::sync::Weak<Manager>,
}

#[async_trait]
impl tripod_engine::TokenIssuer for Issuer {
    async fn issue(&self, _node: &str, request: &TokenRequest) -> tripod_model::Result<Token> {
        let manager = self
            .manager
            .upgrade()
            .ok_or_else(|| Error::unavailable("the manager has stopped"))?;
        let state = manager.state();
        let key = Key::new(
            "serviceaccounts",
            request.namespace.as_str(),
            request.service_account.as_str(),
        );
        let uid = state.get(&key).map(|o| o.uid.to_string());
        let uid = uid.ok_or_else(|| {
            Error::not_found(format_args!(
                "serviceaccounts {:?} not found",
                request.service_account
            ))
        })?;
        drop(state);
        let seconds = request.expiration_seconds.unwrap_or(3600).max(600);
        let wish = Wish {
            namespace: &request.namespace,
            account: &request.service_account,
            account_uid: &uid,
            audiences: &request.audiences,
            seconds,
            bound: Some(("Pod".into(), request.pod.clone(), request.pod_uid.clone())),
            kept_in: None,
        };
        let (token, expires) = issue(&self.shared, &manager, &wish)
            .await
            .map_err(Error::internal)?;
        let expires_at = expires.parse().map_err(Error::internal)?;
        Ok(Token { token, expires_at })
    }
}
