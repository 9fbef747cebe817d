//! The generated files are what the types say.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value)]

use std::path::Path;

#[test]
fn generated_files_are_current() {
    // A test runs in the folder of its package; where it was compiled there may be another checkout, or none any more.
    let root = Path::new("..");
    for target in quorate_crds::manifests().expect("the CRD is serialisable") {
        let found = std::fs::read_to_string(root.join(target.path)).unwrap_or_default();
        assert!(found == target.text, "{} is not current: run `cargo run -p quorate-crds`", target.path);
    }
}

#[test]
fn the_crd_fits_where_kubectl_apply_keeps_it() {
    let json = serde_json::to_string(&quorate_crds::crd()).expect("the CRD is serialisable");
    assert!(
        json.len() < 200 * 1024,
        "{} bytes: client-side apply keeps 256 KiB in an annotation",
        json.len()
    );
}

/// The API server matches it against strings alone, so a number is taken as it is.
#[test]
fn quantities_that_are_strings_are_matched_by_a_pattern() {
    let schema = serde_json::to_value(quorate_crds::crd()).expect("the CRD is serialisable");
    let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let amount = &spec["properties"]["resources"]["properties"]["limits"]["additionalProperties"];
    assert_eq!(amount["x-kubernetes-preserve-unknown-fields"], true);
    assert!(amount["pattern"].is_string() && amount["type"].is_null(), "{amount}");
}

/// kstatus, and what waits by it, takes a resource without a status for done.
#[test]
fn a_cluster_that_nobody_has_looked_at_is_not_taken_for_ready() {
    let schema = serde_json::to_value(quorate_crds::crd()).expect("the CRD is serialisable");
    let status = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let default = &status["default"];
    assert_eq!(default["observedGeneration"], -1, "no generation has been seen");
    let ready = &default["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&"Ready".into(), &"Unknown".into()));
    let required = status["properties"]["conditions"]["items"]["required"].as_array().expect("fields");
    assert!(required.iter().all(|field| ready[field.as_str().unwrap_or_default()].is_string()), "{ready}");
    let read: quorate_crds::RaftClusterStatus = serde_json::from_value(default.clone()).expect("a status");
    assert!(read.cluster_id.is_none() && !read.bootstrapped, "it says nothing of the cluster");
}
