//! What is written is read back, and what is damaged is told.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::page::{HEADER, META_BYTES};
use super::{BadFile, Database, PAGE_BYTES, Unplanned, Writer};

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn feed(writer: &mut Writer, buckets: &Buckets, mut each: impl FnMut(&mut Writer)) {
    for (name, entries) in buckets {
        for (key, value) in entries {
            writer.put(key, value.len(), |out| out.put_slice(value));
            each(writer);
        }
        writer.end_bucket(name);
    }
}

/// Written as it is sent: counted, then taken as it comes.
fn file(buckets: &Buckets) -> Vec<u8> {
    let mut counting = Writer::counting();
    feed(&mut counting, buckets, |writer| assert_eq!(writer.written(), 0));
    let layout = counting.finish().expect("nothing was planned");
    let mut writer = Writer::writing(layout);
    let mut bytes = Vec::new();
    feed(&mut writer, buckets, |writer| bytes.extend(writer.take(writer.written() / 2)));
    assert_eq!(writer.finish(), Ok(layout));
    bytes.extend(writer.take(usize::MAX));
    assert_eq!(bytes.len() as u64, layout.bytes());
    bytes
}

fn read(bytes: &[u8]) -> Result<Buckets, BadFile> {
    let database = Database::open(bytes, bytes.len() as u64)?;
    let mut buckets = Buckets::new();
    for (name, bucket) in database.buckets()? {
        let mut entries = database.entries(&bucket);
        let read = buckets.entry(name.to_vec()).or_default();
        while let Some((key, value)) = entries.next()? {
            read.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(buckets)
}

fn one(name: &str, entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Buckets {
    Buckets::from([(name.as_bytes().to_vec(), entries.into_iter().collect())])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_back(
        buckets in btree_map(
            vec(any::<u8>(), 1..20),
            btree_map(vec(any::<u8>(), 1..600), (any::<u8>(), 0..3000_usize), 0..100),
            0..6,
        ),
    ) {
        let value = |(byte, bytes)| vec![byte; bytes];
        let filled = |entries: BTreeMap<_, _>| entries.into_iter().map(|(key, v)| (key, value(v))).collect();
        let buckets: Buckets = buckets.into_iter().map(|(name, entries)| (name, filled(entries))).collect();
        prop_assert_eq!(read(&file(&buckets)).expect("it is whole"), buckets);
    }
}

/// A tree of three levels, and values that take many pages.
#[test]
fn large_trees_and_values_are_read_back() {
    let key = |number: u32| number.to_be_bytes().to_vec();
    let many = one("many", (0..70_000).map(|number| (key(number), vec![number as u8; 40])));
    assert_eq!(read(&file(&many)).expect("it is whole"), many);
    let large = one("large", (0..7).map(|number| (key(number), vec![number as u8; 1_500_000])));
    assert_eq!(read(&file(&large)).expect("it is whole"), large);
}

/// Nothing but a page of each level is held: what is written can be taken at once, up to the last page.
#[test]
fn what_is_written_is_not_held() {
    let entries = one("key", (0..20_000_u32).map(|number| (number.to_be_bytes().to_vec(), vec![7; 100])));
    let mut counting = Writer::counting();
    feed(&mut counting, &entries, |_| ());
    let mut writer = Writer::writing(counting.finish().expect("nothing was planned"));
    let mut most = 0;
    feed(&mut writer, &entries, |writer| most = most.max(writer.take(usize::MAX).len()));
    assert!(most <= 4 * PAGE_BYTES, "{most} bytes came at once");
}

#[test]
fn another_file_than_was_counted_is_an_error() {
    let mut counting = Writer::counting();
    feed(&mut counting, &one("key", [(vec![1], vec![7; 5000])]), |_| ());
    let mut writer = Writer::writing(counting.finish().expect("nothing was planned"));
    feed(&mut writer, &one("key", [(vec![1], vec![7; 50])]), |_| ());
    assert_eq!(writer.finish(), Err(Unplanned));
}

/// bbolt writes the two in turn, and the other one counts when a write was cut short.
#[test]
fn the_newest_beginning_that_is_whole_counts() {
    let buckets = one("key", [(vec![1], vec![2])]);
    let whole = file(&buckets);
    for page in [0, 1] {
        let mut torn = whole.clone();
        torn[page * PAGE_BYTES + HEADER + 20] ^= 1;
        assert_eq!(read(&torn).expect("the other is whole"), buckets);
    }
    let mut torn = whole.clone();
    for page in [0, 1] {
        torn[page * PAGE_BYTES + HEADER + META_BYTES - 1] ^= 1;
    }
    assert!(matches!(read(&torn), Err(BadFile::NoMeta)));
    assert!(matches!(read(b"what else"), Err(BadFile::NoMeta)));
    assert!(matches!(read(&whole[..whole.len() - 1]), Err(BadFile::CutShort { .. })));
}

/// A page may say anything of where others are.
#[test]
fn loops_and_lies_are_errors() {
    let entries = one("key", (0..400_u32).map(|number| (number.to_be_bytes().to_vec(), vec![7; 100])));
    let whole = file(&entries);
    let page = |id: usize| id * PAGE_BYTES;
    let branch = (3..whole.len() / PAGE_BYTES).find(|id| whole[page(*id) + 8] == 1).expect("there is one");
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        match read(&bytes) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was read"),
        }
    };
    let child = page(branch) + HEADER + 8;
    let set = |bytes: &mut Vec<u8>, at: usize, value: u64| {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    assert!(damaged(&|bytes| set(bytes, child, branch as u64)).contains("deeper"), "it leads to itself");
    assert!(damaged(&|bytes| set(bytes, child + 16, 3)).contains("ascend"), "it leads to one page twice");
    assert!(damaged(&|bytes| set(bytes, child, u64::MAX)).contains("outside"));
    assert!(damaged(&|bytes| set(bytes, child, 2)).contains("neither"), "that is the freelist");
    assert!(damaged(&|bytes| set(bytes, page(3), 4)).contains("another"));
    assert!(damaged(&|bytes| bytes[page(3) + 12] = 255).contains("beyond"));
    assert!(damaged(&|bytes| bytes[page(3) + 11] = 255).contains("more elements"));
    assert!(damaged(&|bytes| bytes[page(3) + 10] = 0).contains("nothing"));
    assert!(damaged(&|bytes| bytes[page(3) + HEADER + 10] = 1).contains("outside"));
    assert!(damaged(&|bytes| bytes[page(3) + HEADER] = 1).contains("bucket within"));
}

/// Whatever byte is another one: it is told, or shows nowhere but in what it is.
#[test]
fn no_change_of_a_byte_does_harm() {
    let buckets = one("key", (0..60_u8).map(|number| (vec![number], vec![number; 90])));
    let whole = file(&buckets);
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let _ = read(&changed);
        }
    }
    let _: Bytes = whole.into();
}
