//! Which plans there are and whose midnights count: the configuration's, unless the command line says otherwise.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::advice::sort_plans;
use crate::cli::DEFAULT_CONFIG;
use crate::config::{self, Diagnostics, MAX_QPS, is_plan_name, nearest};
use crate::plan::Plan;
use crate::upkeep::recorder::Retention;

/// What a recommendation depends on besides the counts.
#[derive(Debug)]
pub(super) struct Settings {
    /// `None` if no configuration was read.
    pub data_dir: Option<PathBuf>,
    pub zone: TimeZone,
    /// How long 10-second counts are kept.
    pub kept: Duration,
    /// The smallest first.
    pub plans: Vec<Plan>,
}

/// Reads the configuration `named`, or the default one. Where it `may_be_missing`, the default one is done without if
/// it is not there or not for this user to read: then there are the built-in plans, and days are UTC's.
pub(super) fn load(
    named: Option<&Path>,
    may_be_missing: bool,
    zone: Option<TimeZone>,
    own_plans: Vec<Plan>,
) -> Result<Settings, Diagnostics> {
    let file = named.unwrap_or(Path::new(DEFAULT_CONFIG));
    let loaded = if named.is_none() && may_be_missing && is_missing(file) { None } else { Some(config::load(file)?) };
    let config = loaded.map(|loaded| loaded.config);
    let mut plans: BTreeMap<_, _> = match &config {
        Some(config) => config.plans.values().map(|plan| (plan.name.clone(), plan.clone())).collect(),
        None => Plan::built_in().map(|plan| (plan.name.clone(), plan)).into(),
    };
    plans.extend(own_plans.into_iter().map(|plan| (plan.name.clone(), plan)));
    let mut plans: Vec<_> = plans.into_values().collect();
    sort_plans(&mut plans);
    let zone = zone.or_else(|| config.as_ref().map(|config| config.timezone.clone())).unwrap_or(TimeZone::UTC);
    let kept = config.as_ref().map_or_else(Retention::default, |config| config.retention).series;
    Ok(Settings { data_dir: config.map(|config| config.data_dir), zone, kept, plans })
}

fn is_missing(file: &Path) -> bool {
    let missing = File::open(file).err().map(|error| error.kind());
    if missing == Some(ErrorKind::PermissionDenied) {
        eprintln!("note: {} may not be read: using the built-in plans and UTC's days", file.display());
    }
    matches!(missing, Some(ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied))
}

/// `NAME=QPS`.
pub(super) fn plan(text: &str) -> Result<Plan, String> {
    let (name, max_qps) = text.split_once('=').ok_or("write NAME=QPS, as in starter=5")?;
    if !is_plan_name(name) {
        return Err("a plan's name is made of letters (a to z), digits, `-` and `_`, as in starter=5".to_owned());
    }
    let max_qps = max_qps.parse().ok().filter(|qps| (1..=MAX_QPS).contains(&i128::from(*qps)));
    let max_qps: u32 = max_qps.ok_or_else(|| format!("its QPS is a whole number from 1 to {MAX_QPS}"))?;
    Ok(Plan::new(name, max_qps))
}

/// A time zone of the IANA database.
pub(super) fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        match nearest(text, names.iter().map(String::as_str)) {
            Some(meant) => format!("there is no such time zone; did you mean {meant}?"),
            None => "there is no such time zone: write an IANA name such as Asia/Shanghai".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("starter")]
    #[case("=5")]
    #[case("a b=5")]
    #[case("starter=")]
    #[case("starter=0")]
    #[case("starter=-1")]
    #[case("starter=1.5")]
    #[case("starter=99999999999")]
    fn a_plan_that_is_none_is_refused(#[case] text: &str) {
        plan(text).unwrap_err();
    }

    #[test]
    fn own_plans_come_in_by_size_and_replace_those_of_their_name() {
        let own = ["starter=5", "pro=200"].map(|text| plan(text).unwrap()).to_vec();
        let settings = load(None, true, None, own).unwrap();
        let plans: Vec<_> = settings.plans.iter().map(|plan| (&*plan.name, plan.max_qps)).collect();
        assert_eq!(plans, [("starter", 5), ("basic", 10), ("enterprise", 100), ("pro", 200)]);
    }

    #[test]
    fn a_zone_that_was_meant_is_named() {
        assert_eq!(zone("Asia/Shangai").unwrap_err(), "there is no such time zone; did you mean Asia/Shanghai?");
        zone("Asia/Shanghai").unwrap();
    }
}
