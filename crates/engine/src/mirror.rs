//! The store's objects as the view of the plans has them, and a plan's writes as the store takes them.

use std::sync::Arc;

use bytes::Bytes;
use tripod_model::data::Network;
use tripod_model::ecs::{EcsCluster, EcsService, TaskDefinition};
use tripod_model::node::Node;
use tripod_model::object::{Kind, decode, encode};
use tripod_model::pod::Pod;
use tripod_model::swarm::{SwarmCluster, SwarmService};
use tripod_model::{Error, Result};
use tripod_plan::kube::{KObject, ObjKey};
use tripod_plan::{Object, View, Write};
use tripod_raft::Watch;
use tripod_store::{Claim, Expected, Key, StoredObject, Txn, WatchFilter};

use crate::db::{Db, Stored, key_of, to_error};

/// The kinds that plans look at in a form of their own, in the order in which they refer to each other.
const FIRST: [&str; 4] = [
    SwarmCluster::RESOURCE,
    Node::RESOURCE,
    Network::RESOURCE,
    SwarmService::RESOURCE,
];

/// A view of all there is, and the changes that follow it.
pub(crate) fn load(db: &Db) -> Result<(View, Watch)> {
    let state = db.cluster().read();
    let mut view = View::new();
    let others = state.kinds().map(|kind| kind.as_str());
    let others = others.filter(|kind| !FIRST.contains(kind) && *kind != Pod::RESOURCE);
    let kinds = FIRST.into_iter().chain(others).chain([Pod::RESOURCE]);
    for kind in kinds {
        for object in state.iter(&kind.into(), None) {
            take_over(&mut view, object).map_err(Error::internal)?;
        }
    }
    view.mark_all_dirty();
    let watch = db
        .cluster()
        .watch(WatchFilter::all(), state.revision())
        .map_err(to_error)?;
    Ok((view, watch))
}

/// Takes an object over into the view.
pub(crate) fn take_over(view: &mut View, object: &StoredObject) -> Result<()> {
    let bytes = &object.bytes;
    take_raw(view, object)?;
    match object.key.kind.as_str() {
        Pod::RESOURCE => view.upsert_pod(Arc::new(decode(bytes)?)),
        SwarmService::RESOURCE => view.upsert_service(Arc::new(decode(bytes)?)),
        Node::RESOURCE => view.upsert_node(Arc::new(decode(bytes)?)),
        Network::RESOURCE => view.upsert_network(Arc::new(decode(bytes)?)),
        SwarmCluster::RESOURCE => view.upsert_cluster(Arc::new(decode(bytes)?)),
        EcsCluster::RESOURCE => view.ecs_mut().upsert_cluster(Arc::new(decode(bytes)?)),
        EcsService::RESOURCE => view.ecs_mut().upsert_service(Arc::new(decode(bytes)?)),
        TaskDefinition::RESOURCE => view.ecs_mut().upsert_definition(Arc::new(decode(bytes)?)),
        _ => {}
    }
    Ok(())
}

/// Takes the stored form over for what decides on all kinds alike; the bytes are shared with the store.
fn take_raw(view: &mut View, object: &StoredObject) -> Result<()> {
    if [Pod::RESOURCE, Node::RESOURCE].contains(&object.key.kind.as_str()) {
        return Ok(());
    }
    let key = obj_key(&object.key);
    let raw = KObject::new(key, object.revision, object.bytes.clone()).map_err(Error::internal)?;
    view.kube_mut().upsert(Arc::new(raw));
    Ok(())
}

fn obj_key(key: &Key) -> ObjKey {
    ObjKey::new(key.kind.as_str(), key.namespace.clone(), key.name.clone())
}

/// Takes over an object that this loop wrote.
pub(crate) fn take_own(view: &mut View, object: Object, stored: &StoredObject) -> Result<()> {
    let revision = stored.revision;
    fn at<K: Kind>(mut object: Arc<K>, revision: u64) -> Arc<K> {
        Arc::make_mut(&mut object).meta_mut().resource_version = revision.to_string();
        object
    }
    match object {
        Object::Pod(o) => view.upsert_pod(at(o, revision)),
        Object::Service(o) => view.upsert_service(at(o, revision)),
        Object::Network(o) => view.upsert_network(at(o, revision)),
        Object::Node(o) => view.upsert_node(at(o, revision)),
        Object::Raw(_) => return take_over(view, stored),
    }
    take_raw(view, stored)
}

pub(crate) fn drop_object(view: &mut View, key: &Key) {
    view.kube_mut().remove(&obj_key(key));
    match key.kind.as_str() {
        Pod::RESOURCE => view.remove_pod(&format!("{}/{}", key.namespace, key.name)),
        SwarmService::RESOURCE => view.remove_service(&key.name),
        Node::RESOURCE => view.remove_node(&key.name),
        Network::RESOURCE => view.remove_network(&key.name),
        SwarmCluster::RESOURCE => view.remove_cluster(),
        EcsCluster::RESOURCE | EcsService::RESOURCE | TaskDefinition::RESOURCE => {
            view.ecs_mut()
                .remove(&key.kind.to_string(), &key.namespace, &key.name);
        }
        _ => {}
    }
}

/// Adds a plan's write to a transaction and returns its size.
pub(crate) fn add(db: &Db, txn: &mut Txn, write: &Write) -> usize {
    let (key, bytes, claims) = match write.object() {
        Object::Pod(o) => stored_form(o.as_ref()),
        Object::Service(o) => stored_form(o.as_ref()),
        Object::Network(o) => stored_form(o.as_ref()),
        Object::Node(o) => stored_form(o.as_ref()),
        Object::Raw(o) => {
            let key = Key::new(&*o.key.resource, o.key.namespace.clone(), o.key.name.clone());
            // What it holds alone, it keeps: controllers do not change such fields.
            let stored = db.cluster().read().get(&key).map(|s| s.claims.to_vec());
            let claims = stored.unwrap_or_else(|| address_claims(&o.key.resource, &o.bytes));
            (key, o.bytes.clone(), claims)
        }
    };
    let size = bytes.len();
    let taken = std::mem::take(txn);
    *txn = match write {
        Write::Create(_) => taken.create(key, bytes, claims),
        Write::Update { based_on, .. } => taken.update(key, *based_on, bytes, claims),
        Write::Delete { based_on, .. } => taken
            .check(key.clone(), Expected::Revision(*based_on))
            .delete(key),
    };
    size
}

/// The address that a new Service holds alone.
fn address_claims(resource: &str, bytes: &[u8]) -> Vec<Claim> {
    if resource != "services" {
        return Vec::new();
    }
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let address = value["spec"]["clusterIP"]
        .as_str()
        .filter(|ip| !ip.is_empty() && *ip != "None");
    let claim = address.map(|ip| Claim {
        index: "services#clusterIP".into(),
        value: ip.into(),
    });
    claim.into_iter().collect()
}

fn stored_form<K: Stored>(object: &K) -> (Key, Bytes, Vec<Claim>) {
    (key_of(object), encode(object).into(), object.claims())
}
