//! The operator's own HTTP port.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quorate_operator::http::{listen, serve};
use quorate_operator::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, path, "*/*").await
}

async fn ask(address: SocketAddr, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and the end of the connection");
    answer
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let metrics = Arc::new(Metrics::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, metrics.clone()));
    metrics.round(true, Duration::from_millis(3));
    metrics.step("Bootstrap");
    for path in ["/livez", "/readyz"] {
        assert!(get(address, path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(get(address, "/else").await.starts_with("HTTP/1.1 404"));
    let text = get(address, "/metrics").await;
    for line in [
        "quorate_operator_reconciliations_total{result=\"success\"} 1",
        "quorate_operator_steps_total{kind=\"Bootstrap\"} 1",
        "quorate_operator_leading 0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

/// Prometheus 3 refuses an answer that does not say what it is.
#[tokio::test]
async fn metrics_say_what_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, Arc::new(Metrics::default())));
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
    for (accept, content_type) in [
        (prometheus_3, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let answer = ask(address, "/metrics", accept).await;
        assert!(answer.contains(&format!("content-type: {content_type}\r\n")), "{accept}: {answer}");
    }
    assert!(get(address, "/livez").await.contains("content-type: text/plain"));
}

#[tokio::test]
async fn all_addresses_are_those_of_both_families() {
    let listener = listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).expect("a port");
    let bound = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, Arc::new(Metrics::default())));
    let ways = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    // A machine without IPv6 is listened on at its IPv4 addresses.
    for way in ways.into_iter().filter(|way: &std::net::IpAddr| way.is_ipv4() || bound.is_ipv6()) {
        let answer = get(SocketAddr::new(way, bound.port()), "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{way}: {answer}");
    }
}
