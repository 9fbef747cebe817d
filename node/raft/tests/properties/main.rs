//! Random histories of a small cluster: every step is checked against the properties of the Raft paper's figure 3, reads are
//! checked for staleness, and once the faults end the cluster has to make progress.
//!
//! `QUORATE_SEEDS=n` runs n histories, `QUORATE_SEED=s` the one that a failure names.

#![allow(clippy::panic, reason = "a property that does not hold ends the test")]

#[allow(dead_code, reason = "each kind of test uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;
mod invariants;
mod world;

use std::env;

use world::{Damage, Plan, World};

/// Prints how to see a failure again.
struct Named {
    plan: &'static str,
    seed: u64,
}

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this history comes back with QUORATE_SEED={} (plan: {})", self.seed, self.plan);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "how many histories to run is no input of the protocol")]
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn run(name: &'static str, histories: u64, plan: &Plan) {
    let seeds = match number("QUORATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUORATE_SEEDS").unwrap_or(histories),
    };
    let mut total = world::Tally::default();
    for seed in seeds {
        let _named = Named { plan: name, seed };
        let mut world = World::new(seed, plan);
        for _ in 0..plan.steps {
            world.step();
        }
        world.heal();
        total.add(&world.tally);
    }
    eprintln!("{name}: {total:?}");
}

#[test]
fn a_network_that_loses_doubles_and_reorders() {
    run("network", 150, &Plan { crashes: 0.0, changes: 0.0, ..Plan::default() });
}

#[test]
fn crashes_that_lose_what_was_not_durable() {
    run("crashes", 150, &Plan { crashes: 0.01, changes: 0.0, ..Plan::default() });
}

#[test]
fn changes_of_membership_under_all_faults() {
    run("changes", 300, &Plan { crashes: 0.005, changes: 0.02, ..Plan::default() });
}

#[test]
fn members_of_different_priority() {
    run("priorities", 100, &Plan { crashes: 0.002, changes: 0.01, priorities: 3, ..Plan::default() });
}

#[test]
fn reads_by_lease_while_clocks_differ() {
    let plan =
        Plan { steps: 4000, crashes: 0.003, changes: 0.003, priorities: 1, leases: true, ..Plan::default() };
    run("leases", 300, &plan);
}

/// Safety needs no whole quorum; elections do.
#[test]
fn disks_that_lose_what_was_durable() {
    let plan = Plan { crashes: 0.01, changes: 0.005, damage: Damage::OfAnyNumber(0.3), ..Plan::default() };
    run("damage", 300, &plan);
}

#[test]
fn disks_that_lose_what_was_durable_while_a_quorum_is_whole() {
    let plan = Plan { crashes: 0.02, changes: 0.005, damage: Damage::OfAMinority(0.7), ..Plan::default() };
    run("damage of a minority", 300, &plan);
}

#[test]
fn a_founder_grows_to_a_cluster() {
    run("founding", 100, &Plan { crashes: 0.003, changes: 0.05, founding: true, ..Plan::default() });
}
