//! What AWS users keep, in the store: which values are unique, changes that try again, and the first key.

use std::sync::Arc;

use tripod_model::aws::*;
use tripod_model::ecs::{EcsCluster, EcsService, TaskDefinition};
use tripod_model::{Error, Result, Time};
use tripod_raft::RaftError;
use tripod_store::{Txn, TxnError};

use crate::db::{Db, Stored, TypedTxn, stored, to_error};
use crate::manager::Manager;
use crate::new_uid;

macro_rules! plain {
    ($($kind:ty),* $(,)?) => { $(impl Stored for $kind {})* };
}
plain!(
    User,
    Group,
    Account,
    AccessKey,
    Role,
    Policy,
    InstanceProfile,
    SecurityGroup,
    VpcPart,
    ResourceTags,
    LogGroup,
    LogStream,
    LogChunk,
    Parameter,
    ManagedSecret,
    AccountSettings,
    CapacityProvider,
    EcsCluster,
    EcsService,
    TaskDefinition,
);

/// Name of the user that a new cluster has.
pub const FIRST_USER: &str = "admin";
/// The managed policy that it has.
const EVERYTHING: &str = "arn:aws:iam::aws:policy/AdministratorAccess";

impl Db {
    /// Changes an object, again when somebody else changed it meanwhile. `None` when there is no such object; `change`
    /// may refuse.
    ///
    /// # Errors
    /// Those of `change`, and of the store.
    pub async fn modify<K: Stored, T, E: From<Error>>(
        &self,
        namespace: &str,
        name: &str,
        change: impl Fn(&mut K) -> Result<T, E> + Send + Sync,
    ) -> Result<Option<(K, T)>, E> {
        loop {
            let Some(mut object) = self.snapshot().get::<K>(namespace, name)? else {
                return Ok(None);
            };
            let before = tripod_model::object::encode(&object);
            let out = change(&mut object)?;
            if tripod_model::object::encode(&object) == before {
                return Ok(Some((object, out)));
            }
            match self.try_submit(Txn::new().replace(&object)).await {
                Ok(done) => return Ok(Some((stored(done)?, out))),
                Err(RaftError::Rejected(TxnError::Conflict { .. })) => {}
                Err(e) => return Err(to_error(e).into()),
            }
        }
    }
}

/// Random bytes as lower-case hex digits.
pub fn hex_id(digits: usize) -> String {
    let bits = rand::random::<[u8; 32]>();
    tripod_model::id::hex64(bits)[..digits.min(64)].to_owned()
}

/// An identifier of IAM: a prefix that tells the kind, and 17 letters and digits.
pub fn iam_id(prefix: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let random = rand::random::<[u8; 17]>();
    let tail = random.iter().map(|b| char::from(LETTERS[usize::from(*b) % 32]));
    prefix.chars().chain(tail).collect()
}

/// A secret of an access key: 40 letters and digits.
pub fn secret_key() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let random = rand::random::<[[u8; 20]; 2]>();
    random
        .as_flattened()
        .iter()
        .map(|b| char::from(LETTERS[usize::from(*b) % 64]))
        .collect()
}

/// A new `metadata.uid`, for the dialects.
pub fn uid() -> String {
    new_uid()
}

impl Manager {
    /// The access key of the first user; made, with the user, in a cluster that has no user yet.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn aws_first_key(self: &Arc<Self>) -> Result<AccessKey> {
        loop {
            let state = self.db().snapshot();
            let name = user_object(FIRST_USER);
            let keys = state.list::<AccessKey>(None)?;
            let key = keys
                .into_iter()
                .find(|k| k.spec.user == FIRST_USER && !k.spec.inactive && k.spec.token.is_empty());
            let user = state.get::<User>("", &name)?;
            match (user, key) {
                (_, Some(key)) => return Ok(key),
                (Some(_), None) => return Err(Error::not_found("the first user has no access key any more")),
                (None, None) => {}
            }
            let now = Time::now();
            let user = UserSpec {
                name: FIRST_USER.into(),
                path: "/".into(),
                id: iam_id("AIDA"),
                attached: vec![EVERYTHING.into()],
                ..UserSpec::default()
            };
            let key = new_key(FIRST_USER);
            let txn = Txn::new()
                .insert(&User::new(name, new_uid(), now, user))
                .insert(&AccessKey::new(key.id.to_lowercase(), new_uid(), now, key));
            match self.db().try_submit(txn).await {
                Ok(_) | Err(RaftError::Rejected(TxnError::Conflict { .. })) => {}
                Err(e) => return Err(to_error(e)),
            }
        }
    }
}

/// `metadata.name` of a user. IAM's names differ not only by case.
pub fn user_object(name: &str) -> String {
    tripod_model::ecs::object_name("user", &name.to_lowercase())
}

/// A new key of a user.
pub fn new_key(user: &str) -> AccessKeySpec {
    AccessKeySpec {
        id: iam_id("AKIA")[..20].to_owned(),
        secret: secret_key(),
        user: user.to_owned(),
        ..AccessKeySpec::default()
    }
}
