//! What happens by time, off the workers: counts are gathered and judged, certificates and their files are watched.

pub mod alerts;
pub mod custody;
pub mod harvest;
pub mod issuing;
pub mod ledger;
pub mod on_demand;
pub mod probe;
pub mod recorder;
pub mod watch;
