//! Keys, by the etcd API.

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_api::mvccpb::KeyValue;
use serde_json::{Map, Value, json};

use super::connect::{Clients, call};
use super::{CtlError, Output, print};

/// Sets a key.
pub(super) async fn put(
    clients: &Clients,
    output: Output,
    key: String,
    value: String,
) -> Result<(), CtlError> {
    let (endpoint, mut client) = clients.keys().await?;
    let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    let response = call(&endpoint, clients.timeout, client.put(request)).await?;
    match output {
        Output::Text => print::text("OK\n")?,
        Output::Json => print::json(&json!({ "revision": revision(response.header.as_ref()) }))?,
    }
    Ok(())
}

/// Shows a key with its value, each on a line of its own; or all of a prefix.
pub(super) async fn get(
    clients: &Clients,
    output: Output,
    key: String,
    prefix: bool,
    serializable: bool,
) -> Result<(), CtlError> {
    let (endpoint, mut client) = clients.keys().await?;
    let (key, range_end) = range(key, prefix);
    let request = pb::RangeRequest { key, range_end, serializable, ..Default::default() };
    let response = call(&endpoint, clients.timeout, client.range(request)).await?;
    match output {
        Output::Text => {
            let lines = response.kvs.iter().flat_map(|kv| [&kv.key[..], b"\n", &kv.value, b"\n"]);
            print::bytes(&lines.flatten().copied().collect::<Vec<u8>>())?;
        }
        Output::Json => {
            let kvs: Vec<Value> = response.kvs.iter().map(describe).collect();
            print::json(&json!({ "revision": revision(response.header.as_ref()), "kvs": kvs }))?;
        }
    }
    if !prefix && response.kvs.is_empty() {
        return Err(CtlError::Cluster("the key does not exist".to_owned()));
    }
    Ok(())
}

/// Deletes a key, or all of a prefix, and says how many there were.
pub(super) async fn del(
    clients: &Clients,
    output: Output,
    key: String,
    prefix: bool,
) -> Result<(), CtlError> {
    let (endpoint, mut client) = clients.keys().await?;
    let (key, range_end) = range(key, prefix);
    let request = pb::DeleteRangeRequest { key, range_end, ..Default::default() };
    let response = call(&endpoint, clients.timeout, client.delete_range(request)).await?;
    let (deleted, revision) = (response.deleted, revision(response.header.as_ref()));
    match output {
        Output::Text => print::text(&format!("{deleted}\n"))?,
        Output::Json => print::json(&json!({ "revision": revision, "deleted": deleted }))?,
    }
    Ok(())
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// One key, or all that begin with it. The empty prefix is every key.
fn range(key: String, prefix: bool) -> (Bytes, Bytes) {
    match (prefix, key.is_empty()) {
        (false, _) => (key.into(), Bytes::new()),
        (true, true) => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        (true, false) => {
            let end = end_of_prefix(key.as_bytes());
            (key.into(), end)
        }
    }
}

/// The first key behind all that begin with `prefix`; a zero byte, which says "no end", when there is none.
fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// Text as text; what is not UTF-8 in hexadecimal, under another name.
fn describe(kv: &KeyValue) -> Value {
    let mut object = Map::new();
    for (name, bytes) in [("key", &kv.key), ("value", &kv.value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => object.insert(name.to_owned(), text.into()),
            Err(_) => object.insert(format!("{name}_hex"), format!("{bytes:x}").into()),
        };
    }
    object.insert("create_revision".to_owned(), kv.create_revision.into());
    object.insert("mod_revision".to_owned(), kv.mod_revision.into());
    object.insert("version".to_owned(), kv.version.into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end() {
        assert_eq!(end_of_prefix(b"ab"), "ac");
        assert_eq!(end_of_prefix(b"a\xff"), "b");
        assert_eq!(end_of_prefix(b"\xff\xff"), "\0");
        assert_eq!(range(String::new(), true), ("\0".into(), "\0".into()));
        assert_eq!(range("a".into(), false), ("a".into(), "".into()));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        let kv = KeyValue { key: "k".into(), value: Bytes::from_static(&[0xff, 0]), ..Default::default() };
        let shown = describe(&kv);
        assert_eq!((&shown["key"], &shown["value_hex"]), (&json!("k"), &json!("ff00")));
    }
}
