//! Of two operators, one works.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// It uses the API server only.
#[allow(dead_code)]
mod support;

use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use quorate_operator::lease::OperatorLease;
use support::api::Api;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/quorate-operator";

#[tokio::test]
async fn the_lease_has_one_holder_and_is_handed_over() {
    let api = Arc::new(Api::new(Arc::new(Mutex::new(Vec::new()))));
    let operator =
        |name: &str| OperatorLease::new(api.client(), "system", "quorate-operator", name.to_owned());
    let (first, second) = (operator("first"), operator("second"));
    let holder = || api.get(LEASE).expect("the lease exists")["spec"]["holderIdentity"].clone();

    first.acquire().await;
    assert_eq!(holder(), "first");
    let mut waits = Box::pin(second.acquire());
    assert!(waits.as_mut().now_or_never().is_none(), "it is held");
    second.release().await;
    assert_eq!(holder(), "first", "nobody gives up what is another's");

    first.release().await;
    waits.await;
    assert_eq!(holder(), "second");
    assert_eq!(api.get(LEASE).expect("the lease exists")["spec"]["leaseTransitions"], 1);
    // It has been lost: the first round of renewal says so.
    first.hold().await;
}
