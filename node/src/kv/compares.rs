//! The compares of a transaction, in pieces.

use std::cmp::Ordering;

use quorate_api::etcdserverpb::Compare;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::Store;
use super::keys::Keys;
use super::revision::Revision;
use super::steps::Steps;
use super::version::Version;

/// Compares under way, all at one point of the history.
#[derive(Debug, Default)]
pub(super) struct Compares {
    /// The first that is not decided.
    at: usize,
    /// The last key of its range that was looked at.
    after: Option<Box<[u8]>>,
    /// Its range has a key.
    is_met: bool,
    /// Keys that exist and were compared, of all ranges.
    pub(super) keys: usize,
}

impl Compares {
    /// Goes on, for about as many steps as there are. Whether all of them hold; none if that takes more steps.
    pub(super) fn advance(
        &mut self,
        store: &Store,
        compares: &[Compare],
        point: Revision,
        steps: &mut Steps,
    ) -> Option<bool> {
        while let Some(compare) = compares.get(self.at) {
            let keys = Keys::new(&compare.key, &compare.range_end);
            let holds = match keys {
                Keys::One(key) => {
                    steps.take(1);
                    match store.version(key, point, steps) {
                        Some(version) => {
                            steps.take_bytes(compared_bytes(compare, version));
                            holds_for(compare, Some(version))
                        }
                        None => holds_for_none(compare),
                    }
                }
                _ => self.range(store, compare, keys, point, steps)?,
            };
            if !holds {
                return Some(false);
            }
            (self.at, self.after, self.is_met) = (self.at + 1, None, false);
            if steps.are_used_up() {
                return (self.at == compares.len()).then_some(true);
            }
        }
        Some(true)
    }

    /// Whether a compare holds: for every key of its range, or for a key of zeros if there is none. None if that takes more steps.
    fn range(
        &mut self,
        store: &Store,
        compare: &Compare,
        keys: Keys<'_>,
        point: Revision,
        steps: &mut Steps,
    ) -> Option<bool> {
        let from = self.after.take();
        for (key, newest) in store.keys_at(keys, from.as_deref(), point) {
            if let Some(version) = store.history.at(newest, point, steps) {
                self.is_met = true;
                self.keys += 1;
                steps.take_bytes(compared_bytes(compare, version));
                if !holds_for(compare, Some(version)) {
                    return Some(false);
                }
            }
            steps.take(1);
            if steps.are_used_up() {
                self.after = Some(key.into());
                return None;
            }
        }
        Some(self.is_met || holds_for_none(compare))
    }
}

/// What does not exist has no value, so that a compare of values does not hold then.
fn holds_for_none(compare: &Compare) -> bool {
    compare.target != CompareTarget::Value as i32 && holds_for(compare, None)
}

/// The most bytes that are looked at to compare a version.
fn compared_bytes(compare: &Compare, version: &Version) -> usize {
    value_operand(compare).len().min(version.value().len())
}

/// Compares one version, or zeros. A target that is unknown compares as equal, a result that is unknown holds, as in etcd.
fn holds_for(compare: &Compare, version: Option<&Version>) -> bool {
    let number = |of: fn(&Version) -> i64| version.map_or(0, of).cmp(&operand(compare));
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => number(Version::number),
        Ok(CompareTarget::Create) => number(|version| version.created),
        Ok(CompareTarget::Mod) => number(|version| version.modified().main),
        Ok(CompareTarget::Lease) => number(|version| version.lease),
        Ok(CompareTarget::Value) => version.map_or(&[][..], Version::value).cmp(value_operand(compare)),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// The number to compare with; 0 if the request carries one for another target.
fn operand(compare: &Compare) -> i64 {
    match (compare.target(), &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(number)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(number)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

/// The value to compare with; empty if the request carries something else.
fn value_operand(compare: &Compare) -> &[u8] {
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    }
}
