//! `lockgate cert`: certificates, shown without a process or beside one, and issued by the one that runs.
//!
//! ```text
//! entry        a certificate, or one that is to be, with all that is known of it
//! gather       every entry: from the inventory, from certificate files, from what is configured
//! deployed     which of them serves which domain
//! list show    tables and facts for people
//! json         the same for scripts
//! order        what the running process is asked for
//! ```

mod deployed;
mod entry;
mod gather;
mod json;
mod list;
mod order;
mod show;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Cert {
    /// Show every certificate, and how many are in which state
    List(list::List),
    /// Show everything that is known of a certificate
    Show(show::Show),
    /// Have the running Lockgate order a certificate now
    Order(order::OrderCommand),
    /// Have the running Lockgate renew certificates now
    Renew(order::Renew),
}

impl Cert {
    pub(super) fn run(self) -> ExitCode {
        super::log_remarks();
        super::block_on(async {
            match self {
                Self::List(list) => list.run().await,
                Self::Show(show) => show.run().await,
                Self::Order(order) => order.run().await,
                Self::Renew(renew) => renew.run().await,
            }
        })
    }
}
