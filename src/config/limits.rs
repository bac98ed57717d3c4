//! `[limits]`, `[log]`, `[access_log]`, `[store]` and `[plans.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;

use super::diagnostic::{Wrong, shown};
use super::keys;
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::values::{choice, days, duration, integer_in, path, size_in, word_or};
use super::{AccessLog, Limits, Log, Target};
use crate::access::Format;
use crate::plan::Plan;
use crate::upkeep::recorder::Retention;

/// The most that a plan can pay for.
pub const MAX_QPS: i128 = 1_000_000;

/// The longest name of a plan: a label in metrics is no place for more.
const MAX_PLAN_NAME_CHARS: usize = 64;

/// Reads `[limits]`.
pub fn read_limits(top: &Reader, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    let Some(table) = top.table("limits", &keys::LIMITS, problems) else { return limits };
    table.read_into("handshake_timeout", &mut limits.handshake_timeout, problems, duration);
    table.read_into("header_timeout", &mut limits.header_timeout, problems, duration);
    table.read_into("idle_timeout", &mut limits.idle_timeout, problems, duration);
    table.read_into("max_header", &mut limits.max_header_bytes, problems, |v| {
        let size = size_in(v, 4096..=1024 * 1024, "a size from \"4KiB\" to \"1MiB\"")?;
        usize::try_from(size).map_err(|_| Wrong::new("`max_header` is too large", "write a smaller size"))
    });
    table.read_into("max_streams", &mut limits.max_streams, problems, |v| integer_in(v, 1..=10_000));
    table.read_into("max_connections", &mut limits.max_connections, problems, |v| word_or(v, "auto", connections));
    table.read_into("max_connections_per_client", &mut limits.max_connections_per_client, problems, |v| {
        word_or(v, "unlimited", connections)
    });
    limits
}

fn connections(value: &Value) -> Result<usize, Wrong> {
    integer_in(value, 1..=i128::from(u32::MAX))
}

/// Reads `[log]`.
pub fn read_log(top: &Reader, problems: &mut Problems) -> Log {
    use tracing::Level;
    let mut log = Log::default();
    let Some(table) = top.table("log", &keys::LOG, problems) else { return log };
    table.read_into("level", &mut log.level, problems, |v| {
        let levels = [("error", Level::ERROR), ("warn", Level::WARN), ("info", Level::INFO), ("debug", Level::DEBUG)];
        choice(v, &levels)
    });
    table.read_into("format", &mut log.json, problems, |v| choice(v, &[("text", false), ("json", true)]));
    log
}

/// Reads `[store]`.
pub fn read_store(top: &Reader, problems: &mut Problems) -> Retention {
    let mut retention = Retention::default();
    let Some(table) = top.table("store", &keys::STORE, problems) else { return retention };
    table.read_into("keep_series", &mut retention.series, problems, days);
    table.read_into("keep_days", &mut retention.days, problems, days);
    retention
}

/// Reads `[access_log]` of a file in the directory `base`.
pub fn read_access_log(top: &Reader, base: &Path, problems: &mut Problems) -> Option<AccessLog> {
    let table = top.table("access_log", &keys::ACCESS_LOG, problems)?;
    let target = table.require("path", "\"/var/log/lockgate/access.log\"", problems, |v| target(v, base));
    let mut format = Format::Json;
    table.read_into("format", &mut format, problems, |v| {
        choice(v, &[("json", Format::Json), ("combined", Format::Combined)])
    });
    Some(AccessLog { target: target?, format })
}

fn target(value: &Value, base: &Path) -> Result<Target, Wrong> {
    if value.string() == Some("stdout") {
        return Ok(Target::Stdout);
    }
    const EXAMPLE: &str = "\"/var/log/lockgate/access.log\"";
    if value.string().is_some_and(|text| text.trim().is_empty()) {
        let remedy = format!("write {EXAMPLE} or \"stdout\", or leave `[access_log]` out");
        return Err(Wrong::new("`path` is empty", remedy));
    }
    let file = path(value, base)?;
    if file.is_dir() || value.string().is_some_and(|text| text.ends_with('/')) {
        let wrong = format!("`{}` is a directory", shown(&file.to_string_lossy()));
        return Err(Wrong::new(wrong, format!("name a file in it, as in {EXAMPLE}, or write \"stdout\"")));
    }
    Ok(Target::File(file))
}

/// Reads the plans, the built-in ones included.
pub fn read_plans(top: &Reader, problems: &mut Problems) -> BTreeMap<String, Plan> {
    let mut plans: BTreeMap<String, Plan> =
        Plan::built_in().into_iter().map(|plan| (plan.name.to_string(), plan)).collect();
    for (name, table) in top.named_tables("plans", &keys::PLAN, problems) {
        if !is_plan_name(name) {
            let message = format!("`{}` cannot be the name of a plan", shown(name));
            let remedy = format!(
                "write 1 to {MAX_PLAN_NAME_CHARS} letters (a to z), digits, `-` or `_`, as in `[plans.starter]`"
            );
            problems.report(table.place, Wrong::new(message, remedy));
        }
        let max_qps = table.require("max_qps", "10", problems, |v| integer_in(v, 1..=MAX_QPS));
        // A plan that is wrong still exists: no domain is blamed for naming it.
        let mut plan = Plan::new(name, max_qps.unwrap_or(1));
        table.read_into("burst", &mut plan.burst, problems, |v| integer_in(v, 1..=i128::from(u32::MAX)));
        table.read("throttle", problems, throttle);
        plans.insert(name.to_owned(), plan);
    }
    plans
}

/// Plans are named in a header field (`RateLimit`, a quoted ASCII string: RFC 9651, section 3.3.3), in metrics and in
/// commands: what needs no quoting in any of them.
pub fn is_plan_name(name: &str) -> bool {
    (1..=MAX_PLAN_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn throttle(value: &Value) -> Result<(), Wrong> {
    if value.string() == Some("delay") {
        let message = "`throttle = \"delay\"` is not supported by this version of lockgate, which only rejects";
        return Err(Wrong::new(message, "write \"reject\", or leave `throttle` out"));
    }
    choice(value, &[("reject", ())])
}
