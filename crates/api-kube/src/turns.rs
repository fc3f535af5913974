//! Writers of a namespace with quotas, one after the other.
//!
//! A write is counted in the quota's own object, so that two can never take the same room; taking turns only spares
//! those of one server from trying in vain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use tripod_store::KindId;

use crate::call::Call;
use crate::target::Target;

type Turn = tokio::sync::Mutex<()>;

/// Who writes, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<Turn>>>);

impl Turns {
    /// Waits for the turn of a request that quotas may concern; at once where there are none.
    pub(crate) async fn take(&self, call: &Call, target: &Target) -> Option<OwnedMutexGuard<()>> {
        let counted =
            target.kind.namespaced && target.kind.plural != "events" && target.kind.plural != "leases";
        let status = target.sub.is_some_and(|s| s.name != "resize");
        if !counted || status || call.dry_run() {
            return None;
        }
        let quotas = KindId::from("resourcequotas");
        call.manager
            .state()
            .iter(&quotas, Some(&target.namespace))
            .next()?;
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turn| turn.strong_count() > 0);
            let turn = all
                .get(&target.namespace)
                .and_then(Weak::upgrade)
                .unwrap_or_default();
            all.insert(target.namespace.clone(), Arc::downgrade(&turn));
            turn
        };
        Some(turn.lock_owned().await)
    }
}
