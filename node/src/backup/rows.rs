//! What stands in the file, from its first bucket to its last.
//!
//! | bucket | what it holds |
//! |---|---|
//! | `alarm` | the alarms that are raised: the message of each, as the key |
//! | `auth`, `authRoles`, `authUsers` | nothing yet |
//! | `cluster` | the version of etcd that it is like |
//! | `key` | the versions of all keys ([`crate::kv::etcd`]), as the last compaction has left them |
//! | `lease` | the leases |
//! | `members`, `members_removed` | the members, each as JSON by its ID |
//! | `meta` | up to where the log is applied, the configuration, the last compaction, the version of the storage |

use std::collections::{BTreeMap, VecDeque};

use parking_lot::RwLock;
use prost::Message as _;
use quorate_api::mvccpb::KeyValue;
use serde_json::json;

use super::schema::{
    ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, CLUSTER_VERSION, CONF_STATE, CONSISTENT_INDEX,
    FINISHED_COMPACT, KEY, LEASE, Lease, MEMBERS, MEMBERS_REMOVED, META, SCHEDULED_COMPACT, STORAGE,
    STORAGE_VERSION, TERM,
};
use crate::kv::{Contents, KvError, Store, etcd};
use crate::leases::{Grant, View};

/// Bytes of versions that are read under one hold of the state's lock, and so what is held of them.
pub(super) const BYTES_AT_ONCE: usize = 256 << 10;

/// Leases that are looked at under one hold.
const LEASES_AT_ONCE: usize = 256;

/// The cluster that the state is of.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Its members, with learners.
    pub members: Vec<Member>,
    /// Who votes.
    pub voters: Vec<u64>,
    /// While the configuration is joint, the voters of the old one.
    pub outgoing: Vec<u64>,
    /// Who does not vote.
    pub learners: Vec<u64>,
}

/// A member.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Its ID.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Where clients do.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Row {
    /// A bucket begins.
    Begin(&'static [u8]),
    /// A key of it, and its value.
    Bytes(Vec<u8>, Vec<u8>),
    /// A key of it, and its value: it is shared with the state.
    Version(Vec<u8>, KeyValue),
    /// It ends.
    End(&'static [u8]),
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// All rows, of the state at one point. Can be gone through twice, and are the same each time.
#[derive(Debug)]
pub(super) struct Rows {
    contents: Contents,
    /// The leases, for each time that they are gone through.
    leases: [View; 2],
    /// Which of the two is next.
    pass: usize,
    /// Those with an ID below zero: as bytes they come last.
    below_zero: Vec<Grant>,
    /// All other buckets. They are small.
    buckets: Vec<(&'static [u8], Pairs)>,
    /// The bucket that is next or under way, and whether it was begun.
    at: (usize, bool),
}

impl Rows {
    /// Of `store` as it is now.
    pub(super) fn new(store: &mut Store, cluster: &Cluster) -> Self {
        let alarms = store.alarms().into_iter().map(|alarm| (alarm.encode_to_vec(), Vec::new()));
        let version = (CLUSTER_VERSION.to_vec(), STORAGE_VERSION.into());
        let buckets = vec![
            (ALARM, alarms.collect()),
            (AUTH, Pairs::new()),
            (AUTH_ROLES, Pairs::new()),
            (AUTH_USERS, Pairs::new()),
            (CLUSTER, Pairs::from([version])),
            (KEY, Pairs::new()),
            (LEASE, Pairs::new()),
            (MEMBERS, members(cluster)),
            (MEMBERS_REMOVED, Pairs::new()),
            (META, meta(store, cluster)),
        ];
        let leases = [store.leases_mut().view(), store.leases_mut().view()];
        let (contents, below_zero) = (store.contents(), Vec::new());
        Self { contents, leases, pass: 0, below_zero, buckets, at: (0, false) }
    }

    /// The revision that they are of.
    pub(super) fn revision(&self) -> i64 {
        self.contents.revision()
    }

    /// Begins anew, once.
    pub(super) fn rewind(&mut self) {
        self.contents.rewind();
        self.pass = 1;
        self.at = (0, false);
    }

    /// Some rows, under one hold of the lock. None at the end.
    pub(super) fn next(&mut self, store: &RwLock<Store>) -> Result<Option<VecDeque<Row>>, KvError> {
        let (at, is_begun) = self.at;
        let Some((name, pairs)) = self.buckets.get(at) else { return Ok(None) };
        let name = *name;
        let mut rows = VecDeque::new();
        if !is_begun {
            rows.push_back(Row::Begin(name));
            self.at = (at, true);
        }
        rows.extend(pairs.iter().map(|(key, value)| Row::Bytes(key.clone(), value.clone())));
        let is_at_end = match name {
            KEY => {
                let versions = self.contents.read(&store.read(), BYTES_AT_ONCE)?;
                let row = |version| Row::Version(etcd::revision_key(&version), etcd::stored(&version));
                rows.extend(versions.into_iter().map(row));
                self.contents.is_read()
            }
            LEASE => self.next_leases(&store.read(), &mut rows)?,
            _ => true,
        };
        if is_at_end {
            rows.push_back(Row::End(name));
            self.at = (at + 1, false);
        }
        Ok(Some(rows))
    }

    /// Adds some leases. Whether these were the last.
    fn next_leases(&mut self, store: &Store, rows: &mut VecDeque<Row>) -> Result<bool, KvError> {
        self.contents.check(store)?;
        let view = &self.leases[self.pass];
        let (below_zero, others): (Vec<_>, Vec<_>) =
            view.next(store.leases(), LEASES_AT_ONCE).into_iter().partition(|grant| grant.id < 0);
        self.below_zero.extend(below_zero);
        rows.extend(others.iter().map(lease));
        let is_at_end = view.is_at_end();
        if is_at_end {
            let last = std::mem::take(&mut self.below_zero);
            rows.extend(last.iter().map(lease));
        }
        Ok(is_at_end)
    }
}

fn lease(grant: &Grant) -> Row {
    let Grant { id, ttl, .. } = *grant;
    Row::Bytes(id.to_be_bytes().to_vec(), Lease { id, ttl, left: 0 }.encode_to_vec())
}

fn members(cluster: &Cluster) -> Pairs {
    let pair = |member: &Member| {
        let Member { id, name, peer_urls, client_urls, is_learner } = member;
        let mut value = json!({ "id": id, "peerURLs": peer_urls, "name": name, "clientURLs": client_urls });
        if *is_learner {
            value["isLearner"] = true.into();
        }
        (format!("{id:x}").into_bytes(), value.to_string().into_bytes())
    };
    cluster.members.iter().map(pair).collect()
}

fn meta(store: &Store, cluster: &Cluster) -> Pairs {
    let (applied, compacted) = (store.applied(), store.compacted());
    let mut configuration = json!({ "voters": cluster.voters, "auto_leave": !cluster.outgoing.is_empty() });
    for (name, ids) in [("learners", &cluster.learners), ("voters_outgoing", &cluster.outgoing)] {
        if !ids.is_empty() {
            configuration[name] = json!(ids);
        }
    }
    let number = |number: u64| number.to_be_bytes().to_vec();
    let mut pairs = vec![
        (CONF_STATE, configuration.to_string().into_bytes()),
        (CONSISTENT_INDEX, number(applied.index)),
        (TERM, number(applied.term)),
        (STORAGE, STORAGE_VERSION.into()),
    ];
    if compacted >= 0 {
        pairs.push((SCHEDULED_COMPACT, etcd::revision_value(compacted)));
        pairs.push((FINISHED_COMPACT, etcd::revision_value(compacted)));
    }
    pairs.into_iter().map(|(key, value)| (key.to_vec(), value)).collect()
}
