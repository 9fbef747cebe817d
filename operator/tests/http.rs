//! The operator's own HTTP port.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

use std::sync::Arc;
use std::time::Duration;

use quorate_operator::http::serve;
use quorate_operator::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\n\r\n");
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
