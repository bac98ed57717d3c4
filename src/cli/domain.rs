//! `lockgate domain`
//!
//! ```text
//! check         the command: gathers what is seen of a name, and says what `checkup` makes of it
//! approved      whether a name that nobody configured may be served
//! configured    what the configuration and the inventory say
//! running       what the running process says
//! asked         what name servers say
//! reached       what answers on the ports of an address
//! behind        what the origin answers
//! exchange      one connection, one request, one answer
//! ```

mod approved;
mod asked;
mod behind;
mod check;
mod configured;
mod exchange;
mod reached;
mod running;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum DomainCommand {
    /// Look at a name's DNS, CAA, ports, origin and certificate: what is wrong, and the one thing to do
    Check(check::Check),
}

impl DomainCommand {
    pub(super) fn run(self) -> ExitCode {
        super::log_remarks();
        match self {
            Self::Check(check) => check.run(),
        }
    }
}
