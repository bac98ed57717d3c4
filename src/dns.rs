//! Name servers: what they say, and the TXT records that we ask others to set.
//!
//! [`Resolver`] asks; [`TxtRecords`] has a record set (by a dynamic update, a provider's API or a program of the
//! operator's), sees that the zone's own name servers have it, and has it taken away again. Nothing here remembers an
//! answer: what a certificate authority is about to ask must not be an old one.

mod error;
mod exchange;
mod exec;
mod placement;
mod propagation;
mod provider;
mod records;
mod resolver;
mod shelves;
mod tsig;
mod update;

#[cfg(test)]
mod tests;

pub use error::{DnsError, Failure, Lack, Lacking, LookupError, UpdateRefusal};
pub use provider::{Needs, provider_names, provider_needs};
pub use records::{Shown, TxtRecords};
pub use resolver::{Caa, CaaSet, Resolver, Zone};
pub use shelves::Shelves;
pub use tsig::ALGORITHMS as TSIG_ALGORITHMS;
