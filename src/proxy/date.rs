//! The `Date` field (RFC 9110, section 6.6.1), written once a second. hyper's own does not step back with the clock.

use std::cell::RefCell;

use http::HeaderValue;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::clock::UnixTime;

/// The last second that was asked for, and its text.
#[derive(Debug, Default)]
pub struct Date(RefCell<Option<(i64, HeaderValue)>>);

impl Date {
    /// `now` as the field shows it; `None` for years that it cannot show.
    pub fn at(&self, now: UnixTime) -> Option<HeaderValue> {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((secs, text)) if *secs == now.secs() => Some(text.clone()),
            _ => {
                let timestamp = Timestamp::from_second(now.secs()).ok()?;
                let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).ok()?;
                let text = HeaderValue::from_str(&text).ok()?;
                *last = Some((now.secs(), text.clone()));
                Some(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_follows_the_clock_in_both_directions() {
        let date = Date::default();
        let at = |secs| date.at(UnixTime::from_secs(secs)).map(|text| text.to_str().unwrap().to_owned());
        assert_eq!(at(784_111_777).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(at(0).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(at(i64::MAX / 1000), None);
    }
}
