//! The command line: one file per command. The only place that prints to standard output.
#![allow(clippy::print_stdout, reason = "printing is what this room is for")]

mod books;
mod cert;
mod check;
mod demo;
mod domain;
mod failure;
mod health;
mod plan;
mod reload;
mod run;
mod running;
mod text;
mod usage;
mod vault;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config;
use crate::server::{StartError, control_socket};

/// One-click HTTPS that you host yourself: terminates TLS for many domains in front of their origin servers, meters
/// each exactly, holds it to its plan, and never serves an expired certificate.
#[derive(Debug, Parser)]
#[command(name = "lockgate", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTPS right now, on this machine, with nothing prepared
    Demo(demo::Demo),
    /// Serve the domains of a configuration file, in the foreground
    Run(ConfigFile),
    /// Say everything that is wrong with a configuration file, and serve nothing
    Check(check::Check),
    /// One name: what is wrong with it
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Ask the running Lockgate whether it serves
    Health(Running),
    /// Plans: which one fits
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Have the running Lockgate read its configuration again, and say what came of it
    Reload(reload::Reload),
    /// Show, export and check what was metered
    #[command(subcommand)]
    Usage(usage::Usage),
    /// Show certificates, and have them issued
    #[command(subcommand)]
    Cert(cert::Cert),
    /// The key that opens all kept private keys: whether it does, and another one
    #[command(subcommand)]
    Vault(vault::VaultCommand),
}

/// The configuration file of a command that is not told another.
const DEFAULT_CONFIG: &str = "/etc/lockgate/lockgate.toml";

/// The option that every command with a configuration has.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short, long = "config", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Which Lockgate a command speaks to.
#[derive(Debug, Args)]
struct Running {
    #[command(flatten)]
    file: ConfigFile,
    /// The running Lockgate's data_dir, if the configuration file no longer says
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Running {
    /// Where it keeps what it must remember.
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| config::data_dir_of(&self.file.config))
    }

    /// Where it listens for commands.
    fn control_socket(&self) -> PathBuf {
        control_socket(&self.data_dir())
    }
}

impl Cli {
    /// Carries out the command. 0: fine; 1: the work failed; 2: wrong usage or configuration.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Demo(demo) => demo.run(),
            Command::Run(file) => run::run(&file.config),
            Command::Check(check) => check.run(),
            Command::Domain(command) => command.run(),
            Command::Health(running) => health::run(&running),
            Command::Plan(command) => command.run(),
            Command::Reload(reload) => reload.run(),
            Command::Usage(usage) => usage.run(),
            Command::Cert(cert) => cert.run(),
            Command::Vault(vault) => vault.run(),
        }
    }
}

/// Says why a server did not start.
fn report(error: &StartError) -> ExitCode {
    match error {
        StartError::Config(diagnostics) => eprintln!("{}", diagnostics.render(std::io::stderr().is_terminal())),
        StartError::Machine(why) => eprintln!("error: {why}"),
    }
    error.exit_code()
}

/// Carries out what waits for sockets and databases.
fn block_on(work: impl Future<Output = Result<ExitCode, failure::Failure>>) -> ExitCode {
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(failure::Failure::Work(error.to_string())),
    };
    done.unwrap_or_else(|failure| failure.report())
}

/// What of the counts cannot be read is logged where it is met; for a command that reads, that is a remark beside the
/// answer.
fn log_remarks() {
    let remarks = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("lockgate=warn");
    _ = remarks.without_time().with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init();
}
