//! What a cluster costs, and what a dead host must not cost.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::time::Duration;

use serde_json::json;
use support::{CLUSTER, Stage};
use tokio::time::Instant;

async fn three() -> Stage {
    let stage = Stage::new(json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    stage.until_ready().await;
    stage.round().await.expect("the round succeeds");
    tokio::time::pause();
    stage
}

/// By the clock of the test, which stands still while anything is done.
async fn round(stage: &Stage) -> Duration {
    let began = Instant::now();
    stage.round().await.expect("the round succeeds");
    began.elapsed()
}

#[tokio::test]
async fn dead_host_holds_up_neither_a_round_nor_the_news_of_a_leader() {
    let stage = three().await;
    stage.nodes.hang(0);
    stage.nodes.lead(2);
    let first = round(&stage).await;
    assert!(first < Duration::from_millis(1100), "{first:?}");
    assert_eq!(stage.status()["leader"], "demo-2");
    let next = round(&stage).await;
    assert!(next < Duration::from_millis(400), "it is known to be silent: {next:?}");
}

#[tokio::test]
async fn while_no_leader_answers_all_have_the_time_of_a_call() {
    let stage = three().await;
    for ordinal in 0..3 {
        stage.nodes.hang(ordinal);
    }
    let took = round(&stage).await;
    assert!(took >= Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn member_that_is_behind_for_a_moment_changes_no_status() {
    let stage = three().await;
    stage.nodes.fall_behind(1);
    stage.api.take_log();
    round(&stage).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    round(&stage).await;
    let log = stage.api.take_log();
    assert!(!log.contains(&format!("PATCH {CLUSTER}/status")), "{log:#?}");
    tokio::time::advance(Duration::from_secs(6)).await;
    round(&stage).await;
    assert_eq!(stage.status()["voters"], "2/3", "it stays behind");
}

#[tokio::test]
async fn leader_and_one_more_are_watched_and_all_while_none_leads() {
    let stage = three().await;
    let watched = async || {
        round(&stage).await;
        stage.nodes.take_watched();
        // Each stream that was refused is tried again within this.
        tokio::time::sleep(Duration::from_secs(11)).await;
        stage.nodes.take_watched()
    };
    assert_eq!(watched().await, [0, 1].into());
    stage.nodes.lead(2);
    assert_eq!(watched().await, [0, 2].into());
    stage.nodes.silence(2);
    assert_eq!(watched().await, [0, 1, 2].into());
}
