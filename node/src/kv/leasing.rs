//! What leases have to do with keys: a key hangs on the lease that its newest version names, and goes with it.

use quorate_api::etcdserverpb as pb;
use quorate_api::log::ExpireLease;

use super::keys::Keys;
use super::steps::Steps;
use super::store::Store;
use super::writer::Writer;
use super::{KvError, header};
use crate::leases::{self, Leases};

/// What it costs to hang a key on a lease, or to take it off, in steps.
const HANGING: usize = 2;

/// A lease that ends, with all keys that hang on it: one revision, however many they are.
#[derive(Debug)]
pub(super) struct Ending {
    id: i64,
    /// It is meant only if it is this grant.
    grant: Option<u64>,
    /// What remains to be deleted, once it has begun.
    keys: Option<leases::Keys>,
}

impl Ending {
    /// A client wants it.
    pub(super) fn asked_for(request: pb::LeaseRevokeRequest) -> Self {
        Self { id: request.id, grant: None, keys: None }
    }

    /// Its time is over.
    pub(super) fn expired(expire: &ExpireLease) -> Self {
        Self { id: expire.id, grant: Some(expire.grant), keys: None }
    }

    /// Goes on, for about as many steps as there are. None if there is more to do.
    pub(super) fn advance(
        &mut self,
        store: &mut Store,
        writer: &mut Writer,
        steps: &mut Steps,
    ) -> Option<Result<(), KvError>> {
        steps.take(1);
        let Self { id, grant, keys } = self;
        if keys.is_none() {
            let lease = store.leases.get(*id).filter(|lease| grant.is_none_or(|grant| grant == lease.number));
            if lease.is_none() {
                return Some(Err(KvError::LeaseNotFound));
            }
        }
        let keys = keys.get_or_insert_with(|| store.leases.take_keys(*id));
        loop {
            let Some(key) = keys.pop_first() else {
                store.leases.end(*id);
                return Some(Ok(()));
            };
            // One, or none if what hangs on the lease is not there: that cannot be.
            for (key, newest) in store.index.take_live(Keys::One(&key), 1, usize::MAX).0 {
                writer.bury(store, key, newest, steps);
            }
            if steps.are_used_up() {
                return None;
            }
        }
    }
}

impl Store {
    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The same, to be read as they are now while they go on changing, and to learn what has changed.
    pub fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// Grants a lease.
    pub(super) fn grant_lease(
        &mut self,
        request: &pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, KvError> {
        let pb::LeaseGrantRequest { id, ttl } = *request;
        // Whoever asks has chosen one: 0 stands for none in every put.
        if id == 0 {
            return Err(KvError::LeaseNotFound);
        }
        let ttl = ttl.clamp(1, leases::MAX_TTL);
        self.leases.grant(id, ttl).map_err(|leases::Exists| KvError::LeaseExists)?;
        let header = Some(header(self.revision));
        Ok(pb::LeaseGrantResponse { header, id, ttl, error: String::new() })
    }

    /// The newest version of `key` names the lease `now`, where it named `before`; 0 for none.
    pub(super) fn hang(&mut self, key: &[u8], before: i64, now: i64, steps: &mut Steps) {
        if before == now {
            return;
        }
        steps.take(HANGING);
        steps.take_bytes(key.len());
        if before != 0 {
            self.leases.detach(before, key);
        }
        if now != 0 {
            self.leases.attach(now, key);
        }
    }

    /// Hangs every key on the lease that its newest version names: those of a state that was written down. False if there is one that names a lease
    /// that does not exist.
    pub(super) fn hang_all(&mut self) -> bool {
        let Self { index, history, leases, .. } = self;
        index.range(Keys::From(&[]), None, false).all(|(key, newest)| {
            let lease = history.newest(newest).lease;
            lease == 0 || leases.attach(lease, key)
        })
    }
}
