//! The metrics, in the text that the reader knows.
//!
//! `OpenMetrics` is for those that ask for it. All others get Prometheus' older text, which knows no units, no `info`, and counters by the
//! names of their samples: Telegraf and Vector among others drop a whole scrape over one type that they do not know.

use http::StatusCode;

use super::answer::{Answer, Asked};
use crate::metrics::Scrape;

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_1: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`.
pub(super) fn metrics(asked: &Asked<'_>, scrape: &Scrape) -> Answer {
    match scrape.text() {
        None => Answer::line(StatusCode::SERVICE_UNAVAILABLE, "starting: there are no metrics yet"),
        Some(text) if asked.accepts(OPEN_METRICS) => {
            Answer::new(StatusCode::OK, OPEN_METRICS_1, text.as_str().to_owned())
        }
        Some(text) => Answer::new(StatusCode::OK, PROMETHEUS, older(&text)),
    }
}

/// `OpenMetrics` as Prometheus' text.
fn older(text: &str) -> String {
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        if let Some((name, kind)) = line.split_once(' ') {
            kinds.insert(name, kind);
        }
    }
    let named = |name: &str| match kinds.get(name) {
        Some(&"counter") => format!("{name}_total"),
        Some(&"info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut older = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let kind = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                kind => kind,
            };
            older.extend(["# TYPE ", &named(name), " ", kind, "\n"]);
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' '))
        {
            older.extend(["# HELP ", &named(name), " ", help, "\n"]);
        } else if !line.starts_with('#') {
            older.push_str(line);
            older.push('\n');
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_has_only_what_older_readers_know() {
        let text = "# HELP node Which node this is.\n# TYPE node info\nnode_info{version=\"1\"} 1\n\
                    # HELP proposals Writes.\n# TYPE proposals counter\nproposals_total 2\n\
                    # TYPE append_seconds histogram\n# UNIT append_seconds seconds\nappend_seconds_sum 1.0\n# EOF\n";
        assert_eq!(
            older(text),
            "# HELP node_info Which node this is.\n# TYPE node_info gauge\nnode_info{version=\"1\"} 1\n\
             # HELP proposals_total Writes.\n# TYPE proposals_total counter\nproposals_total 2\n\
             # TYPE append_seconds histogram\nappend_seconds_sum 1.0\n"
        );
    }
}
