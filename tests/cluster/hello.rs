//! Finds out who dials: reads along in a connection to a peer port until the dialler has said who it is.

use std::collections::BTreeMap;

use prost::Message as _;
use quorate_api::peer::{Frame, Hello};

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
const PADDED: u8 = 0x8;
/// The byte that says "not compressed", and four with the length.
const MESSAGE_HEADER: usize = 5;
/// A hello comes first: whoever has not said it by now is no peer.
const LIMIT: usize = 256 * 1024;

/// What was read of one connection (HTTP/2, RFC 9113; gRPC's messages within its DATA frames).
#[derive(Debug, Default)]
pub(crate) struct Listener {
    read: usize,
    preface: bool,
    unread: Vec<u8>,
    /// The beginning of what was sent on each stream.
    streams: BTreeMap<u32, Vec<u8>>,
}

impl Listener {
    /// Takes the next bytes from the dialler. Answers the hello once it has all come.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Option<Hello> {
        if self.read > LIMIT {
            return None;
        }
        self.read += bytes.len();
        self.unread.extend_from_slice(bytes);
        if !self.preface {
            if self.unread.len() < PREFACE {
                return None;
            }
            self.unread.drain(..PREFACE);
            self.preface = true;
        }
        while let Some((stream, data)) = self.next_frame() {
            let message = self.streams.entry(stream).or_default();
            message.extend_from_slice(&data);
            if let Some(hello) = first_message(message).and_then(|frame| frame.hello) {
                return Some(hello);
            }
        }
        None
    }

    /// The next whole frame: its stream, and its data if it carries any.
    fn next_frame(&mut self) -> Option<(u32, Vec<u8>)> {
        let header = self.unread.get(..FRAME_HEADER)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & !(1 << 31);
        self.unread.get(..FRAME_HEADER + length)?;
        let payload: Vec<u8> = self.unread.drain(..FRAME_HEADER + length).skip(FRAME_HEADER).collect();
        let data = match (kind, flags & PADDED, payload.split_first()) {
            (DATA, 0, _) => payload,
            (DATA, _, Some((padding, rest))) => {
                rest[..rest.len().saturating_sub(usize::from(*padding))].to_vec()
            }
            _ => Vec::new(),
        };
        Some((stream, data))
    }
}

fn first_message(stream: &[u8]) -> Option<Frame> {
    let (header, rest) = stream.split_at_checked(MESSAGE_HEADER)?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    Frame::decode(rest.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn connection(hello: Option<Hello>) -> Vec<u8> {
        let body = Frame { hello, ..Frame::default() }.encode_to_vec();
        let mut message = vec![0];
        message.extend((body.len() as u32).to_be_bytes());
        message.extend(body);
        let (begin, end) = message.split_at(message.len() / 2);
        let padded: Vec<u8> = [&[3], end, &[0, 0, 0]].concat();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[0; 6]));
        bytes.extend(frame(1, 4, 1, b"some headers"));
        bytes.extend(frame(DATA, 0, 1, begin));
        bytes.extend(frame(DATA, PADDED, 1, &padded));
        bytes
    }

    #[test]
    fn a_hello_is_heard_however_it_is_cut_up() {
        let from_address = "127.0.0.1:1".to_owned();
        let hello = Hello { cluster_id: 7, from: 11, to: 12, from_address, ..Hello::default() };
        let bytes = connection(Some(hello.clone()));
        for size in 1..bytes.len() {
            let mut listener = Listener::default();
            let heard: Vec<Hello> = bytes.chunks(size).filter_map(|chunk| listener.hear(chunk)).collect();
            assert_eq!(heard.first(), Some(&hello), "in pieces of {size} bytes");
        }
    }

    #[test]
    fn whoever_says_no_hello_is_not_heard() {
        assert_eq!(Listener::default().hear(&connection(None)), None);
        assert_eq!(Listener::default().hear(b"GET / HTTP/1.1\r\n\r\n and so on"), None);
    }
}
