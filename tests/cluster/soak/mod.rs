//! Clients that do the worst they may to three small nodes, for a long while: the nodes go on under the leader that they have.
//!
//! `QUORATE_SOAK_SECONDS` sets for how long (`make soak` takes half an hour). Each node has 1024 descriptors and 512 MiB of memory.

mod worst;

use std::time::{Duration, Instant};

use quorate_tests::clients::Pace;
use quorate_tests::limits::{Limits, MemoryGroup};

use crate::scenario::Scenario;
use worst::Abuses;

/// What a container's runtime gives where nothing else is asked for.
const DESCRIPTORS: u64 = 1024;
/// Of each node, in bytes.
const MEMORY: u64 = 512 << 20;
/// For how long in an ordinary run of the tests, in seconds.
const USUAL: u64 = 40;
/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is said how far it is.
const SAY: Duration = Duration::from_mins(1);
/// Slow enough for a history of half an hour that can be checked.
const PACE: Pace = Pace { clients: 6, rest: Duration::from_millis(250) };

/// Every way at once, in random strength.
#[tokio::test]
async fn clients_do_their_worst_and_the_leader_stays() {
    let seconds =
        std::env::var("QUORATE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(USUAL);
    let groups: Vec<_> = (0..3).map(|number| group(&format!("soak-{number}"))).collect();
    let limits = groups.iter().map(|group| {
        let memory = group.as_ref().map(|group| group.path().to_owned());
        Limits { descriptors: DESCRIPTORS, memory }
    });
    let name = "clients_do_their_worst_and_the_leader_stays";
    let mut scenario = Scenario::start_limited(name, limits.collect(), PACE).await;
    let (leader, before) = scenario.cluster.wait_for_voters(3).await;
    let abuses = Abuses::start(&scenario.cluster, &mut scenario.random);
    let (begun, mut said) = (Instant::now(), Instant::now());
    while begun.elapsed() < Duration::from_secs(seconds) {
        scenario.cluster.assert_alive();
        for node in scenario.cluster.up() {
            // A node that is too busy to answer says nothing; that it has another leader would show in the others' terms.
            if let Ok(status) = scenario.cluster.status(node).await {
                assert_eq!(
                    status.term,
                    before.term,
                    "node-{node} has seen an election after {:?}",
                    begun.elapsed()
                );
            }
        }
        if said.elapsed() > SAY {
            said = Instant::now();
            eprintln!("{} of {seconds} s: {}", begun.elapsed().as_secs(), abuses.counts());
        }
        tokio::time::sleep(LOOK).await;
    }
    eprintln!("{}", abuses.counts());
    abuses.stop().await;
    let (after, status) = scenario.cluster.wait_for_voters(3).await;
    assert_eq!((after, status.term), (leader, before.term), "the leader has changed");
    scenario.finish().await;
}

fn group(name: &str) -> Option<MemoryGroup> {
    MemoryGroup::new_unless_excused(name, MEMORY).unwrap_or_else(|reason| panic!("{reason}"))
}
