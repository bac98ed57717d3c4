//! One name's account: what it has used and has answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alert::{Alert, AlertKind};
use crate::meter::Tally;
use crate::plan::{Plan, Standing};
use crate::refusal::OriginFault;
use crate::store::Fold;
use crate::usage::{Exceeded, Usage, qps};

/// What a name has used. One that has never had a request has none.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) usage: Usage,
    pub(super) answered: [u64; 5],
    pub(super) throttled: u64,
    pub(super) origin_faults: BTreeMap<OriginFault, u64>,
    /// Its place in the queue of accounts that the store does not have as they are.
    pub(super) unsaved: Option<u64>,
    /// Whether it has counts that the journal does not have.
    pub(super) is_unjournaled: bool,
}

impl Account {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, ..Self::default() }
    }

    /// Takes in what a worker counted for it.
    pub(super) fn count(&mut self, tally: &Tally) {
        if tally.arrived > 0 {
            self.usage.add(tally.bucket, tally.pass, u64::from(tally.arrived));
        }
        self.answered.iter_mut().zip(tally.answered).for_each(|(sum, n)| *sum += u64::from(n));
        self.throttled += u64::from(tally.throttled);
    }

    /// What the store is to have of it, as it is now.
    pub(super) fn fold(&mut self) -> Fold {
        self.unsaved = None;
        Fold { name: Arc::clone(&self.name), counts: self.usage.take_closed(), state: self.usage.save() }
    }

    /// What is told of a bucket that was over `plan`.
    pub(super) fn alert_of(&self, exceeded: &Exceeded, plan: Option<&Plan>) -> Alert {
        let limit = plan.map_or_else(String::new, |p| format!(" over the {} QPS of plan {}", p.max_qps, p.name));
        let kind = if exceeded.standing == Standing::Excessive { AlertKind::QpsThrottled } else { AlertKind::QpsOver };
        let detail = format!("{:.1} QPS at {}{limit}", qps(exceeded.count), exceeded.bucket.start());
        Alert { kind, domain: Arc::clone(&self.name), at: exceeded.bucket.end(), detail }
    }
}
