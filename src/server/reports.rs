//! Certificate pairs that cannot be used: said at start, at every reload, and when their files change.

use super::StartError;
use crate::config::{Diagnostic, Diagnostics, Loaded, OnBroken, PairPart, PairUse};
use crate::control::BrokenPair;
use crate::pairs::PairError;

/// At start a broken pair is fatal if the operator says so; else the domain's fallback serves, and it is said loudly.
///
/// # Errors
/// Every broken pair, if `on_broken_certificate = "refuse"`.
pub fn report_broken(loaded: &Loaded, broken: &[BrokenPair]) -> Result<(), StartError> {
    let mut diagnostics = Diagnostics::new();
    for used in &loaded.pairs {
        if let Some(BrokenPair { error, .. }) = broken.iter().find(|broken| broken.pair == used.pair) {
            diagnostics.push(broken_diagnostic(loaded, used, error));
        }
    }
    if diagnostics.is_empty() {
        return Ok(());
    }
    if loaded.config.on_broken_certificate == OnBroken::Refuse {
        return Err(StartError::Config(diagnostics));
    }
    tracing::warn!("certificates that cannot be used; their domains are served with a fallback:\n{diagnostics}");
    Ok(())
}

/// Points at the file of a pair that is to blame.
pub fn broken_diagnostic(loaded: &Loaded, used: &PairUse, error: &PairError) -> Diagnostic {
    let part = match error.path() {
        path if path == used.pair.cert => PairPart::Cert,
        path if path == used.pair.key => PairPart::Key,
        _ => PairPart::Pair,
    };
    loaded.broken_part(used, part, &error.to_string(), error.remedy())
}

/// Says in the log that a pair which is needed now cannot be used, and what serves instead.
pub fn warn_of(broken: &BrokenPair) {
    let BrokenPair { pair, error, keeps_serving } = broken;
    let remedy = error.remedy();
    let effect = if *keeps_serving { "the certificate read before goes on serving" } else { "the fallback serves" };
    tracing::warn!(cert = %pair.cert.display(), key = %pair.key.display(), "certificate not usable: {error}; {remedy}; {effect}");
}
