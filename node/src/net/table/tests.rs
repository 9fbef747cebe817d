//! Which connections go, and which stay.

use super::*;

pub(crate) fn limits(most: usize) -> Limits {
    Limits {
        port: "test",
        flag: None,
        most,
        members: 0,
        requests: 100,
        silence: Duration::from_secs(1),
        unread: Duration::from_secs(2),
        unread_when_full: Duration::from_millis(200),
        grace: Duration::from_millis(1),
        life: None,
    }
}

fn table(most: usize) -> Connections {
    Connections::new(limits(most))
}

async fn admit(table: &Connections) -> Slot {
    table.admit().await.unwrap()
}

#[tokio::test]
async fn the_least_worth_goes_for_a_new_one() {
    let table = table(4);
    let [busy, idle, fresh, silent] =
        [admit(&table).await, admit(&table).await, admit(&table).await, admit(&table).await];
    for slot in [&busy, &idle, &fresh] {
        slot.speaks();
    }
    let request = busy.asks(false).unwrap();
    drop(idle.asks(false));
    let words = |slots: [&Slot; 4]| slots.map(|slot| slot.place.word() != Word::Stay);
    let fifth = admit(&table).await;
    assert_eq!(words([&busy, &idle, &fresh, &silent]), [false, false, false, true], "the silent one first");
    drop(silent);
    // The fifth is silent.
    fifth.speaks();
    let _request = fifth.asks(false).unwrap();
    let sixth = admit(&table).await;
    assert_eq!(
        words([&busy, &idle, &fresh, &fifth]),
        [false, false, true, false],
        "then who has asked nothing"
    );
    sixth.speaks();
    let _more = sixth.asks(false).unwrap();
    let seventh = admit(&table).await;
    assert_eq!(words([&busy, &idle, &sixth, &fifth]), [false, true, false, false], "then the idle one");
    seventh.speaks();
    let _most = seventh.asks(false).unwrap();
    assert_eq!(table.admit().await.unwrap_err(), NoPlace::Busy, "all are busy");
    drop(request);
    admit(&table).await;
    assert_eq!(table.counts().refused, 1);
    assert_eq!(table.counts().evicted, 4);
}

#[tokio::test]
async fn those_that_have_just_come_are_left_in_peace_unless_they_are_a_crowd() {
    let table = table(20);
    let mut idle = Vec::new();
    for _ in 0..20 {
        let slot = admit(&table).await;
        slot.speaks();
        drop(slot.asks(false));
        idle.push(slot);
    }
    let stays = |slot: &Slot| slot.place.word() == Word::Stay;
    // One of eight may be on its way in.
    let mut arriving = Vec::new();
    for _ in 0..3 {
        arriving.push(admit(&table).await);
    }
    assert!(arriving.iter().all(stays));
    assert_eq!(idle.iter().filter(|slot| stays(slot)).count(), 17);
    arriving.push(admit(&table).await);
    assert_eq!(arriving.iter().filter(|slot| stays(slot)).count(), 3);
    assert_eq!(idle.iter().filter(|slot| stays(slot)).count(), 17);
}

#[tokio::test]
async fn those_that_only_listen_make_place_and_requests_have_a_bound() {
    let table = table(2);
    let slots = [admit(&table).await, admit(&table).await];
    slots.iter().for_each(Slot::speaks);
    let stream = slots.iter().map(|slot| slot.asks(true).unwrap()).collect::<Vec<_>>();
    let request = slots[0].asks(false).unwrap();
    let _third = admit(&table).await;
    assert_eq!(slots[0].place.word(), Word::Stay);
    assert_eq!(slots[1].place.word(), Word::Leave);
    drop((stream, request));
    let all: Vec<_> = (0..100).map(|_| slots[0].asks(false).unwrap()).collect();
    assert!(slots[0].asks(false).is_none());
    drop(all);
    assert!(slots[0].asks(false).is_some());
}

#[tokio::test]
async fn of_idle_ones_the_longest_idle_goes() {
    let table = table(3);
    let slots = [admit(&table).await, admit(&table).await, admit(&table).await];
    for slot in [&slots[2], &slots[0], &slots[1]] {
        slot.speaks();
        drop(slot.asks(false));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _new = admit(&table).await;
    let left: Vec<_> = slots.iter().map(|slot| slot.place.word()).collect();
    assert_eq!(left, [Word::Stay, Word::Stay, Word::Leave]);
}

#[tokio::test]
async fn who_does_not_go_is_cut_off_for_the_next_one() {
    // Nobody sweeps: those that wait must not depend on a deadline.
    let table = table(1);
    let mut stubborn = Vec::new();
    for _ in 0..=LEAVING {
        let slot = admit(&table).await;
        slot.speaks();
        stubborn.push(slot);
    }
    let next = tokio::spawn({
        let table = table.clone();
        async move { table.admit().await.is_ok() }
    });
    assert_eq!(stubborn[0].told(Word::Leave).await, Word::Cut);
    assert!(!next.is_finished(), "no place was freed");
    drop(stubborn.remove(0));
    assert!(next.await.unwrap());
}

#[tokio::test]
async fn silent_and_unread_ones_are_cut_off_and_idle_ones_live_on() {
    let table = table(9);
    tokio::spawn(table.clone().sweep());
    let [silent, idle, unread, reading] =
        [admit(&table).await, admit(&table).await, admit(&table).await, admit(&table).await];
    for slot in [&idle, &unread, &reading] {
        slot.speaks();
    }
    assert_eq!(silent.told(Word::Stay).await, Word::Cut);
    let asks = |slot: &Slot, is_stream| Arc::new(slot.asks(is_stream).unwrap());
    let (stuck, slow, other) = (asks(&unread, false), asks(&reading, false), asks(&unread, false));
    let _stuck = stuck.waits();
    let _listens = asks(&idle, true).waits();
    let reads = async {
        loop {
            let _parts = [slow.waits(), other.waits()];
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        word = unread.told(Word::Stay) => assert_eq!(word, Word::Cut, "one answer was not read, though others were"),
        () = reads => {}
    }
    assert_eq!(reading.place.word(), Word::Stay);
    assert_eq!(idle.place.word(), Word::Stay);
    assert_eq!(table.counts().cut, 2);
}

/// What operators ask, and streams without a hello, are busy for as long as they like.
#[tokio::test]
async fn busy_strangers_make_place_for_members_and_members_for_nobody() {
    let table = Connections::new(Limits { members: 2, ..limits(3) });
    let comes = async || {
        let slot = admit(&table).await;
        slot.speaks();
        let caller = Caller::new(None, None);
        slot.speaks_for(caller.clone());
        let asked = slot.asks(false).unwrap();
        (slot, asked, caller)
    };
    let strangers = [comes().await, comes().await, comes().await];
    let words = || strangers.each_ref().map(|(slot, ..)| slot.place.word());
    let first = comes().await;
    assert_eq!(words(), [Word::Leave, Word::Stay, Word::Stay], "who came first");
    first.2.is_a_member();
    let second = comes().await;
    assert_eq!(words(), [Word::Leave, Word::Leave, Word::Stay]);
    second.2.is_a_member();
    assert_eq!(table.admit().await.unwrap_err(), NoPlace::Busy, "the last place is that of others");
    assert_eq!([&first, &second].map(|(slot, ..)| slot.place.word()), [Word::Stay; 2]);
}

/// Others are refused for what its answers hold.
#[tokio::test]
async fn who_does_not_read_is_cut_off_sooner_while_others_are_refused() {
    let limits = Limits { unread: Duration::from_hours(1), ..limits(9) };
    let table = Connections::new(limits);
    tokio::spawn(table.clone().sweep());
    let [holds, elsewhere] = [admit(&table).await, admit(&table).await];
    let refused = [Arc::default(), Arc::new(AtomicU64::new(7))];
    for (slot, refused) in [&holds, &elsewhere].into_iter().zip(&refused) {
        slot.speaks();
        slot.watches(refused);
    }
    let asks = |slot: &Slot| Arc::new(slot.asks(false).unwrap());
    let (first, second) = (asks(&holds), asks(&elsewhere));
    let _unread = [first.waits(), second.waits()];
    let others = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            refused[0].fetch_add(1, Ordering::Relaxed);
        }
    };
    let word = async {
        tokio::select! {
            word = holds.told(Word::Stay) => word,
            word = others => word,
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_mins(1), word).await, Ok(Word::Cut));
    assert_eq!(elsewhere.place.word(), Word::Stay, "nobody was refused for its answers");
}

#[tokio::test]
async fn a_closed_table_waits_for_those_that_go() {
    let table = table(2);
    let slot = admit(&table).await;
    let goes = tokio::spawn(async move {
        assert_eq!(slot.told(Word::Stay).await, Word::Leave);
    });
    assert!(table.close(Duration::from_mins(1)).await);
    goes.await.unwrap();
    assert_eq!(table.admit().await.unwrap_err(), NoPlace::Closed);
}

#[tokio::test]
async fn a_closed_table_cuts_off_those_that_stay() {
    let table = table(2);
    let slot = admit(&table).await;
    assert!(!table.close(Duration::from_millis(10)).await);
    assert_eq!(slot.told(Word::Leave).await, Word::Cut);
}
