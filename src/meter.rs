//! Counts by bucket, one table per worker thread.
//!
//! A worker counts into plain cells that no other thread touches, and ships what has gathered several times a second.
//! So the request's way takes no lock and no shared cache line, and the sum over all shipments is exactly what arrived.

use std::cell::RefCell;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Reading, UnixTime};
use crate::refusal::OriginFault;

/// The length of a bucket, aligned to the Unix epoch.
pub const BUCKET_SECS: u64 = 10;

/// Ten seconds of wall time: bucket `b` covers the seconds `10 b` to `10 b + 9` since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bucket(pub i64);

impl Bucket {
    /// The bucket that `at` lies in.
    pub const fn of(at: UnixTime) -> Self {
        Self(at.secs().div_euclid(BUCKET_SECS as i64))
    }

    /// Its first moment.
    pub const fn start(self) -> UnixTime {
        UnixTime::from_secs(self.0.saturating_mul(BUCKET_SECS as i64))
    }

    /// The first moment after it.
    pub const fn end(self) -> UnixTime {
        self.start().plus_secs(BUCKET_SECS as i64)
    }
}

/// A metered name's place in every worker's table. Given once per name for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// Its place in a table by slot.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The classes that answers are counted by: `1xx` to `5xx`.
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What one worker counted for one name since it last shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Whose.
    pub slot: Slot,
    /// When the arrivals were.
    pub bucket: Bucket,
    /// The clock's pass at that time: see [`crate::clock::Clock`].
    pub pass: u32,
    /// Requests that arrived in that bucket.
    pub arrived: u32,
    /// Of all requests, whenever they arrived: answers since the last shipment, by status class.
    pub answered: [u32; 5],
    /// Of those, refused by the throttle.
    pub throttled: u32,
}

/// Everything a worker ships at once.
#[derive(Debug, Default)]
pub struct Shipment {
    /// Counts, at most a few per name.
    pub tallies: Vec<Tally>,
    /// Failures of origins, by name and kind.
    pub origin_faults: Vec<(Slot, OriginFault, u32)>,
}

impl Shipment {
    /// Whether there is anything in it.
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty() && self.origin_faults.is_empty()
    }
}

/// One worker's table. Used by that worker's thread alone.
#[derive(Debug, Default)]
pub struct WorkerMeter {
    inner: RefCell<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Indexed by slot; grows to the highest slot that this worker has met.
    cells: Vec<Tally>,
    /// Slots whose cell is not empty, so that shipping costs what was active, not what exists.
    touched: Vec<Slot>,
    /// Counts of buckets that ended since the last shipment.
    turned: Vec<Tally>,
    origin_faults: HashMap<(Slot, OriginFault), u32>,
}

impl Tally {
    const fn empty(slot: Slot, bucket: Bucket, pass: u32) -> Self {
        Self { slot, bucket, pass, arrived: 0, answered: [0; 5], throttled: 0 }
    }

    fn is_empty(&self) -> bool {
        self.arrived == 0 && self.throttled == 0 && self.answered == [0; 5]
    }
}

impl WorkerMeter {
    /// Counts one request that arrived `at`.
    pub fn count_arrival(&self, slot: Slot, at: Reading) {
        let bucket = Bucket::of(at.now);
        let mut table = self.inner.borrow_mut();
        let Some((cell, turned)) = table.cell(slot) else { return };
        if (cell.bucket, cell.pass) != (bucket, at.pass) {
            if cell.arrived > 0 {
                turned.push(Tally { answered: [0; 5], throttled: 0, ..*cell });
            }
            *cell = Tally { bucket, pass: at.pass, arrived: 0, ..*cell };
        }
        cell.arrived = cell.arrived.saturating_add(1);
    }

    /// Counts one answer with `status`; `throttled` if the throttle gave it.
    pub fn count_answer(&self, slot: Slot, status: http::StatusCode, throttled: bool) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        let mut table = self.inner.borrow_mut();
        let Some((cell, _)) = table.cell(slot) else { return };
        if let Some(n) = cell.answered.get_mut(class) {
            *n = n.saturating_add(1);
        }
        cell.throttled = cell.throttled.saturating_add(u32::from(throttled));
    }

    /// Counts one failure of a name's origin.
    pub fn count_origin_fault(&self, slot: Slot, fault: OriginFault) {
        *self.inner.borrow_mut().origin_faults.entry((slot, fault)).or_default() += 1;
    }

    /// Takes everything that gathered since the last call.
    pub fn ship(&self) -> Shipment {
        let mut table = self.inner.borrow_mut();
        let Table { cells, touched, turned, origin_faults } = &mut *table;
        let mut tallies = std::mem::take(turned);
        tallies.reserve(touched.len());
        for slot in touched.drain(..) {
            if let Some(cell) = cells.get_mut(slot.index()) {
                tallies.push(std::mem::replace(cell, Tally::empty(slot, cell.bucket, cell.pass)));
            }
        }
        let origin_faults = origin_faults.drain().map(|((slot, fault), n)| (slot, fault, n)).collect();
        Shipment { tallies, origin_faults }
    }
}

impl Table {
    /// The cell about to be counted into, and where its old bucket goes should it turn.
    fn cell(&mut self, slot: Slot) -> Option<(&mut Tally, &mut Vec<Tally>)> {
        let index = slot.index();
        if index >= self.cells.len() {
            let fresh = |i| Tally::empty(Slot(i as u32), Bucket(i64::MIN), 0);
            self.cells.extend((self.cells.len()..=index).map(fresh));
        }
        let cell = self.cells.get_mut(index)?;
        if cell.is_empty() {
            self.touched.push(slot);
        }
        Some((cell, &mut self.turned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use proptest::prelude::*;

    fn at(s: i64, pass: u32) -> Reading {
        Reading { now: UnixTime::from_secs(s), pass }
    }

    /// Counts arrivals of slot 3 at the given seconds and passes; what is shipped: (bucket, pass, arrived).
    fn shipped(arrivals: &[(i64, u32)]) -> Vec<(i64, u32, u32)> {
        let meter = WorkerMeter::default();
        for (s, pass) in arrivals {
            meter.count_arrival(Slot(3), at(*s, *pass));
        }
        meter.ship().tallies.iter().map(|t| (t.bucket.0, t.pass, t.arrived)).collect()
    }

    #[test]
    fn a_request_belongs_to_the_bucket_of_its_arrival() {
        assert_eq!(shipped(&[(99, 0), (100, 0), (109, 0), (110, 0)]), [(9, 0, 1), (10, 0, 2), (11, 0, 1)]);
        assert_eq!(shipped(&[(-1, 0), (0, 0)]), [(-1, 0, 1), (0, 0, 1)]);
    }

    #[test]
    fn a_bucket_met_in_another_pass_is_shipped_apart() {
        assert_eq!(shipped(&[(100, 0), (110, 0), (100, 1)]), [(10, 0, 1), (11, 0, 1), (10, 1, 1)]);
        assert_eq!(shipped(&[(105, 0), (101, 1)]), [(10, 0, 1), (10, 1, 1)]);
    }

    #[test]
    fn answers_are_counted_by_class_and_only_once() {
        let meter = WorkerMeter::default();
        meter.count_arrival(Slot(0), at(5, 0));
        for (status, throttled) in [(200, false), (204, false), (429, true), (101, false), (599, false)] {
            meter.count_answer(Slot(0), StatusCode::from_u16(status).unwrap(), throttled);
        }
        let tallies = meter.ship().tallies;
        assert_eq!((tallies[0].answered, tallies[0].throttled, tallies[0].arrived), ([1, 2, 0, 1, 1], 1, 1));
        assert!(meter.ship().is_empty());
    }

    #[test]
    fn an_answer_after_its_bucket_was_shipped_is_not_lost() {
        let meter = WorkerMeter::default();
        meter.count_arrival(Slot(0), at(5, 0));
        meter.ship();
        meter.count_answer(Slot(0), StatusCode::OK, false);
        meter.count_arrival(Slot(0), at(15, 0));
        let tallies = meter.ship().tallies;
        assert_eq!(tallies.iter().map(|t| t.arrived).sum::<u32>(), 1);
        assert_eq!(tallies.iter().map(|t| t.answered[1]).sum::<u32>(), 1);
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_the_sum_is_what_arrived(
            steps in prop::collection::vec((0u32..5, -50i64..200, 0u32..3, any::<bool>()), 0..200)
        ) {
            let meter = WorkerMeter::default();
            let mut sum = 0;
            for (slot, s, pass, ship) in &steps {
                meter.count_arrival(Slot(*slot), at(*s, *pass));
                if *ship {
                    sum += meter.ship().tallies.iter().map(|t| t.arrived as usize).sum::<usize>();
                }
            }
            sum += meter.ship().tallies.iter().map(|t| t.arrived as usize).sum::<usize>();
            prop_assert_eq!(sum, steps.len());
        }
    }
}
