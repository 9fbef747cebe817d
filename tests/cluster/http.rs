//! The HTTP port of a node, as the scenarios ask it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// All that is answered to a GET of `path`, headers included.
async fn get(http: SocketAddr, path: &str) -> Result<String, String> {
    let answer = async {
        let mut socket = TcpStream::connect(http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    answer.await.map_err(|error| error.to_string())
}

/// With which code `path` is answered: 200, if all is well.
pub(crate) async fn code(http: SocketAddr, path: &str) -> Result<u16, String> {
    let answer = get(http, path).await?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or(format!("not HTTP: {answer}"))
}

/// A metric without labels.
pub(crate) async fn metric(http: SocketAddr, name: &str) -> Result<u64, String> {
    let text = get(http, "/metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("no {name} in {text}"))
}
