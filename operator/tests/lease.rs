//! Of two operators, one works.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// It uses the API server only.
#[allow(dead_code)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_operator::lease::OperatorLease;
use support::api::Api;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/quorate-operator";

/// Shorter than a lease lasts, and long enough for several tries.
const A_WHILE: Duration = Duration::from_secs(10);
/// Longer than a lease lasts.
const LONG: Duration = Duration::from_secs(40);

#[tokio::test(start_paused = true)]
async fn the_lease_has_one_holder_and_is_handed_over() {
    let api = Arc::new(Api::new(Arc::new(Mutex::new(Vec::new()))));
    let (first, second) = (operator(&api, "first"), Arc::new(operator(&api, "second")));
    let holder = || api.get(LEASE).expect("the lease exists")["spec"]["holderIdentity"].clone();

    first.acquire().await;
    assert_eq!(holder(), "first");
    let waiting = second.clone();
    let waits = tokio::spawn(async move { waiting.acquire().await });
    tokio::time::sleep(A_WHILE).await;
    assert!(!waits.is_finished(), "it is held");
    second.release().await;
    assert_eq!(holder(), "first", "nobody gives up what is another's");

    first.release().await;
    tokio::time::sleep(A_WHILE).await;
    assert!(waits.is_finished(), "it need not wait for the end of the lease");
    assert_eq!(holder(), "second");
    assert_eq!(api.get(LEASE).expect("the lease exists")["spec"]["leaseTransitions"], 1);
    // It has been lost: the first round of renewal says so.
    first.hold().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_renews_is_taken_over_and_one_that_is_renewed_is_not() {
    let api = Arc::new(Api::new(Arc::new(Mutex::new(Vec::new()))));
    let (first, second) = (Arc::new(operator(&api, "first")), operator(&api, "second"));
    first.acquire().await;
    let holding = first.clone();
    let holds = tokio::spawn(async move { holding.hold().await });
    let waits = tokio::spawn(async move { second.acquire().await });
    tokio::time::sleep(LONG).await;
    assert!(!waits.is_finished(), "it is renewed");
    holds.abort();
    tokio::time::sleep(A_WHILE).await;
    assert!(!waits.is_finished(), "it has not expired");
    tokio::time::sleep(LONG).await;
    assert!(waits.is_finished(), "it has expired");
    assert_eq!(api.get(LEASE).expect("the lease exists")["spec"]["holderIdentity"], "second");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_a_free_lease_at_once_one_has_it() {
    let api = Arc::new(Api::new(Arc::new(Mutex::new(Vec::new()))));
    let (first, second) = (operator(&api, "first"), operator(&api, "second"));
    first.acquire().await;
    first.release().await;
    let both = async { futures::join!(first.acquire(), second.acquire()) };
    assert!(tokio::time::timeout(A_WHILE, both).await.is_err(), "only one can have it");
}

#[tokio::test(start_paused = true)]
async fn renewal_is_one_request() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let api = Arc::new(Api::new(log));
    let first = Arc::new(operator(&api, "first"));
    first.acquire().await;
    api.refuse("GET", 500);
    api.take_log();
    let holds = tokio::spawn(async move { first.hold().await });
    tokio::time::sleep(A_WHILE).await;
    let renewals = api.take_log();
    assert!(renewals.len() >= 2 && renewals.iter().all(|line| line.starts_with("PUT")), "{renewals:#?}");
    holds.abort();
}

fn operator(api: &Arc<Api>, name: &str) -> OperatorLease {
    OperatorLease::new(api.client(), "system", "quorate-operator", name.to_owned())
}
