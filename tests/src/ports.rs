//! Free ports on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that Linux takes the ports of outgoing connections from: nobody else gets them by chance.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address on loopback that nobody listens on now, and that this process does not hand out again soon.
pub fn free() -> SocketAddr {
    // Test programs that run side by side start at different places.
    let start = std::process::id() as u16 % 97 * 200;
    let candidates = (0..COUNT).map(|_| {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + offset))
    });
    let mut free = candidates.filter(|address| TcpListener::bind(address).is_ok());
    free.next().expect("of twenty thousand ports one is free")
}
