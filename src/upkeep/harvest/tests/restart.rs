//! What is written down, and what a process makes of it that begins with nothing else.

use proptest::prelude::*;

use super::*;
use crate::store::{Fold, Seal};
use crate::usage::{Series, Usage, raise};

/// What a journal and a store would have, by the rules that both promise: larger counts hold, states are replaced.
#[derive(Default)]
struct Disk {
    journal: BTreeMap<(Arc<str>, Bucket, u32), u64>,
    states: BTreeMap<Arc<str>, Vec<u8>>,
    series: Series,
    seals: Vec<Seal>,
    at: Option<Reading>,
}

impl Disk {
    fn write_journal(&mut self, field: &mut Field) {
        let changes = field.harvest.take_changes();
        // The clock is written with something, never alone.
        if !changes.is_empty() {
            self.at = Some(field.now());
        }
        for entry in changes {
            let known = self.journal.entry((entry.name, entry.bucket, entry.pass)).or_default();
            *known = entry.count.max(*known);
        }
    }

    fn seal(&mut self, field: &mut Field) {
        let seals = field.harvest.take_seals(100);
        seals.iter().for_each(|seal| self.fold(seal.fold.clone()));
        self.seals.extend(seals);
    }

    fn store(&mut self, field: &mut Field) {
        let (folds, sealed) = (field.harvest.take_folds(100), self.seals.len());
        let is_nothing_to_store = folds.is_empty();
        folds.into_iter().for_each(|fold| self.fold(fold));
        self.seal(field);
        // Here, too.
        if !is_nothing_to_store || self.seals.len() > sealed {
            self.at = Some(field.now());
        }
        assert_eq!((field.harvest.status(field.now()).unsaved, field.harvest.status(field.now()).backlog), (0, 0));
        // Everything it said is in the store.
        self.journal.clear();
    }

    fn fold(&mut self, fold: Fold) {
        fold.counts.into_iter().for_each(|(bucket, count)| raise(&mut self.series, bucket, count));
        self.states.insert(fold.name, fold.state);
    }

    fn past(&self) -> Past {
        let usages = self.states.iter().map(|(name, state)| (Arc::clone(name), Usage::load(state).unwrap()));
        let entries = self.journal.iter().map(|((name, bucket, pass), count)| {
            let (name, bucket, pass, count) = (Arc::clone(name), *bucket, *pass, *count);
            crate::journal::Entry { name, bucket, pass, count }
        });
        Past { at: self.at, zone: Some("UTC".to_owned()), usages: usages.collect(), entries: entries.collect() }
    }
}

/// The sealed days, as (first bucket since midnight of 2026-06-01, throttled seconds).
fn sealed(disk: &Disk) -> Vec<(i64, u64)> {
    disk.seals.iter().map(|seal| (seal.day.start.0 - MIDNIGHT / 10, seal.throttled_secs)).collect()
}

#[test]
fn a_process_killed_in_mid_bucket_goes_on_with_the_same_bucket_peak_and_verdict() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(200).pass_time(10);
    disk.store(&mut field);
    field.pass_time(20).arrive(60);
    disk.write_journal(&mut field);
    field.restart(disk.past());
    assert!(field.is_throttled(), "at once");
    assert_eq!(field.alerts(), [], "nobody is told again");
    field.arrive(200).pass_time(10);
    let figures = field.figures();
    assert_eq!((figures.qps, figures.peak_qps, figures.is_throttled), (26.0, 26.0, true));
}

#[test]
fn a_verdict_that_nobody_was_told_of_is_told_after_the_restart() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(200);
    disk.write_journal(&mut field);
    field.wall_s += 60;
    field.restart(disk.past());
    assert!(field.is_throttled());
    assert_eq!(field.alerts(), [("qps_throttled", 1)]);
}

#[test]
fn a_verdict_ends_while_the_process_is_down() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(200).pass_time(10);
    disk.store(&mut field);
    field.wall_s += 86_400;
    field.restart(disk.past());
    assert!(!field.is_throttled());
    assert_eq!(field.alerts(), [("throttle_lifted", 1)]);
    disk.store(&mut field);
    field.restart(disk.past());
    assert_eq!(field.alerts(), [], "told once, although nothing else is stored");
    field.pass_time(1);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), [(0, 86_390)], "held from the bucket after to the end of the day");
    field.restart(disk.past());
    assert_eq!(field.alerts(), [], "told once");
}

#[test]
fn an_upgrade_while_the_process_is_down_ends_the_verdict_then() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(200).pass_time(10);
    disk.store(&mut field);
    field.wall_s += 3600 - 10;
    field.restart_with(disk.past(), Some(Plan::new("pro", 30)));
    assert!(!field.is_throttled());
    assert_eq!(field.alerts(), [("throttle_lifted", 1)]);
    field.pass_time(86_400);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), [(0, 3600)]);
}

#[test]
fn a_bucket_that_ends_while_the_process_is_down_is_told() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(105).pass_time(9);
    disk.write_journal(&mut field);
    field.wall_s += 2;
    field.restart(disk.past());
    assert_eq!((field.alerts(), field.is_throttled()), (vec![("qps_over", 1)], false));
}

#[test]
fn a_bucket_that_had_ended_was_told_before() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(105).pass_time(10);
    field.arrive(1);
    disk.write_journal(&mut field);
    disk.journal.retain(|_, count| *count > 1);
    field.restart(disk.past());
    assert_eq!(field.alerts(), []);
}

#[test]
fn what_is_remembered_late_is_added_to_what_arrived_meanwhile() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(60);
    disk.store(&mut field);
    field.restart(Past::default());
    field.arrive(51);
    field.harvest.resume(disk.past(), field.now());
    field.pass_time(10);
    assert_eq!((field.figures().qps, field.is_throttled()), (11.1, true));
}

#[test]
fn a_day_that_is_not_over_again_takes_nothing_away() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(60).pass_time(86_400);
    // It is over, nobody has sealed it, and the clock goes back: what waits for the store still does.
    field.jump(-7200);
    field.arrive(5).pass_time(10);
    assert_eq!(field.harvest.take_seals(10), []);
    disk.store(&mut field);
    assert_eq!(disk.series.values().copied().collect::<Vec<_>>(), [60, 5]);
}

#[test]
fn days_that_ended_while_the_process_was_down_are_sealed() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(5).pass_time(86_400);
    field.arrive(7).pass_time(10);
    disk.write_journal(&mut field);
    disk.journal.retain(|(_, bucket, _), _| bucket.0 >= MIDNIGHT / 10 + 8640);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), [(0, 0)]);
    field.wall_s += 5 * 86_400;
    field.restart(disk.past());
    field.pass_time(1);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), [(0, 0), (8640, 0)]);
}

#[test]
fn a_day_is_sealed_when_it_is_over_and_amended_when_something_comes_late() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.wall_s += 86_400 - 10;
    field.arrive(5).pass_time(9);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), []);
    field.pass_time(1);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), [(0, 0)]);
    assert_eq!((disk.seals[0].limit_qps, disk.seals[0].peak.map(|peak| peak.count)), (Some(10), Some(5)));
    field.jump(-10);
    field.arrive(6);
    field.pass_time(10);
    disk.store(&mut field);
    assert_eq!(sealed(&disk), [(0, 0), (0, 0)]);
    field.pass_time(86_400);
    disk.store(&mut field);
    assert_eq!(sealed(&disk).len(), 2, "an idle day leaves none");
}

#[test]
fn names_that_nobody_serves_keep_what_they_used_and_are_found_again() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(200).pass_time(10);
    disk.store(&mut field);
    let mut past = disk.past();
    past.usages[0].0 = "later.example.com".into();
    field.restart(past);
    assert_eq!(field.figures().peak_qps, 0.0);
    field.publish(&["later.example.com"], basic());
    assert_eq!(field.figures().peak_qps, 20.0);
    assert!(field.live.snapshot().site("later.example.com").unwrap().is_throttled());
    field.pass_time(86_400);
    disk.store(&mut field);
    assert_eq!(sealed(&disk).len(), 1);
}

#[test]
fn another_zone_since_the_last_process_counts_from_now_on() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
    field.harvest.follow(&field.live.snapshot(), &shanghai, field.now());
    // In Shanghai it has been 2 June since 16:00 UTC.
    field.wall_s += 15 * 3600;
    field.arrive(70).pass_time(10);
    field.pass_time(3600 * 2);
    field.arrive(20).pass_time(10);
    assert_eq!(field.figures().peak_qps, 2.0);
    disk.store(&mut field);
    field.restart(Past { zone: Some("Asia/Shanghai".to_owned()), ..disk.past() });
    assert_eq!(field.figures().peak_qps, 7.0);
    // The store has it so, too.
    disk.store(&mut field);
    field.restart(disk.past());
    assert_eq!(field.figures().peak_qps, 7.0);
}

#[test]
fn what_waits_to_be_stored_or_sealed_of_a_name_that_nobody_serves_still_does_when_it_is_served() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(60);
    disk.write_journal(&mut field);
    let mut past = disk.past();
    past.entries[0].name = "later.example.com".into();
    field.wall_s += 86_400;
    field.restart(past);
    field.pass_time(1);
    field.publish(&["later.example.com"], basic());
    let status = field.harvest.status(field.now());
    assert_eq!((status.unsaved, status.backlog, status.to_seal), (1, 1, 1));
    let folds = field.harvest.take_folds(1);
    assert_eq!(
        folds.iter().map(|fold| (&*fold.name, fold.counts.len())).collect::<Vec<_>>(),
        [("later.example.com", 1)]
    );
    disk.seal(&mut field);
    assert_eq!(sealed(&disk), [(0, 0)]);
}

#[test]
fn the_accounts_that_have_waited_longest_are_stored_first() {
    let mut field = Field::with(basic());
    field.publish(&["www.example.com", "b.example.com", "c.example.com"], basic());
    let arrive = |field: &mut Field, slot| {
        let bucket = Bucket::of(field.now().now);
        let tally = Tally { slot: Slot(slot), bucket, pass: 0, arrived: 1, answered: [0; 5], throttled: 0 };
        field.harvest.take(Shipment { tallies: vec![tally], origin_faults: Vec::new() });
    };
    [1, 0, 2, 1].into_iter().for_each(|slot| arrive(&mut field, slot));
    let stored: Vec<_> = (0..3).flat_map(|_| field.harvest.take_folds(1)).map(|fold| fold.name).collect();
    let names: Vec<_> = [1, 0, 2].iter().map(|slot| Arc::clone(&field.harvest.accounts[&Slot(*slot)].name)).collect();
    assert_eq!(stored, names);
}

#[test]
fn days_that_ended_are_sealed_although_they_are_remembered_late() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(60).pass_time(10);
    disk.store(&mut field);
    field.wall_s += 5 * 86_400;
    field.restart(Past::default());
    field.pass_time(20);
    field.harvest.resume(disk.past(), field.now());
    field.pass_time(10);
    disk.seal(&mut field);
    assert_eq!(sealed(&disk), [(0, 0)]);
}

#[test]
fn a_new_store_gets_everything_that_is_known() {
    let (mut field, mut disk) = (Field::with(basic()), Disk::default());
    field.arrive(200).pass_time(10);
    disk.store(&mut field);
    let mut other = Disk::default();
    other.store(&mut field);
    assert!(other.states.is_empty());
    field.harvest.run_errand(Errand::SaveAll, field.now());
    other.store(&mut field);
    assert_eq!(other.states, disk.states);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Arrive(u32),
    Pass(i64),
    JumpBack(i64),
    Store,
    Seal,
}

/// What happens, and whether the process is killed after it.
fn events(happens: impl Strategy<Value = Event>) -> impl Strategy<Value = Vec<(Event, bool)>> {
    prop::collection::vec((happens, prop::bool::weighted(0.2)), 1..40)
}

/// Less than a day in all, in which the clock goes back: nothing leaves the window.
fn a_wild_day() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1u32..150).prop_map(Event::Arrive),
        4 => (1i64..25).prop_map(Event::Pass),
        1 => (1000i64..2000).prop_map(Event::Pass),
        1 => (3i64..400).prop_map(Event::JumpBack),
        1 => Just(Event::Store),
        1 => Just(Event::Seal),
    ]
}

/// Days on which the clock does nothing but go on.
fn calm_days() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1u32..150).prop_map(Event::Arrive),
        4 => (1i64..25).prop_map(Event::Pass),
        1 => (1000i64..90_000).prop_map(Event::Pass),
        1 => Just(Event::Store),
        1 => Just(Event::Seal),
    ]
}

/// A process that is killed now and then ends with what one has that never was.
fn restarts_change_nothing(events: Vec<(Event, bool)>) -> Result<(), TestCaseError> {
    let (mut lives_on, mut killed) = (Field::with(basic()), Field::with(basic()));
    let (mut kept, mut disk) = (Disk::default(), Disk::default());
    for (event, is_killed) in events {
        for (field, disk) in [(&mut lives_on, &mut kept), (&mut killed, &mut disk)] {
            match event {
                Event::Arrive(n) => _ = field.arrive(n),
                Event::Pass(secs) => _ = field.pass_time(secs),
                Event::JumpBack(secs) => _ = field.jump(-secs),
                Event::Store => disk.store(field),
                Event::Seal => disk.seal(field),
            }
            disk.write_journal(field);
        }
        if is_killed {
            killed.restart(disk.past());
            killed.pass_time(0);
            lives_on.pass_time(0);
        }
        let (a, b) = (lives_on.figures(), killed.figures());
        prop_assert_eq!((a.peak_qps, a.is_throttled), (b.peak_qps, b.is_throttled));
        // Of buckets that lie before a jump back only the latest are shown again.
        if lives_on.pass == 0 {
            prop_assert_eq!(a.qps, b.qps);
        }
    }
    for (field, disk) in [(&mut lives_on, &mut kept), (&mut killed, &mut disk)] {
        field.pass_time(2 * 86_400);
        disk.store(field);
    }
    prop_assert_eq!(&kept.series, &disk.series);
    let days = |disk: &Disk| disk.seals.iter().map(|seal| seal.day).collect::<std::collections::HashSet<_>>();
    prop_assert_eq!(days(&kept), days(&disk));
    Ok(())
}

proptest! {
    #[test]
    fn restarts_change_nothing_on_a_wild_day(events in events(a_wild_day())) {
        restarts_change_nothing(events)?;
    }

    #[test]
    fn restarts_change_nothing_on_calm_days(events in events(calm_days())) {
        restarts_change_nothing(events)?;
    }
}
