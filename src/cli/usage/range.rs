//! Which days are asked for.

use std::ops::RangeInclusive;

use clap::Args;
use jiff::civil::Date;

use crate::cli::failure::Failure;

/// Days by their dates, both ends included.
#[derive(Debug, Args)]
pub(super) struct Range {
    /// The first day: YYYY-MM-DD, `today` or `yesterday`
    #[arg(long, value_name = "DATE", value_parser = When::parse)]
    from: Option<When>,
    /// The last day
    #[arg(long, value_name = "DATE", value_parser = When::parse)]
    to: Option<When>,
    /// This day alone
    #[arg(long, value_name = "DATE", value_parser = When::parse, conflicts_with_all = ["from", "to"])]
    date: Option<When>,
}

/// A day as one names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Today,
    Yesterday,
    On(Date),
}

impl When {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "today" => Ok(Self::Today),
            "yesterday" => Ok(Self::Yesterday),
            // jiff would take a time behind the date, too, and leave it out.
            _ if text.len() == "2026-06-01".len() => text.parse().map(Self::On).map_err(|_| no_date()),
            _ => Err(no_date()),
        }
    }

    fn date(self, today: Date) -> Date {
        match self {
            Self::Today => today,
            Self::Yesterday => today.yesterday().unwrap_or(today),
            Self::On(date) => date,
        }
    }
}

fn no_date() -> String {
    "not a date: write it as in 2026-06-01, or `today` or `yesterday`".to_owned()
}

impl Range {
    /// The days, as seen on `today`; all that there are, unless told otherwise.
    ///
    /// # Errors
    /// If the last is before the first.
    pub(super) fn all_unless_told(&self, today: Date) -> Result<RangeInclusive<Date>, Failure> {
        self.resolve(today, Date::MAX, |_| Date::MIN)
    }

    /// The days, as seen on `today`; unless told otherwise until then, and `days` of them.
    ///
    /// # Errors
    /// If the last is before the first.
    pub(super) fn last_days(&self, today: Date, days: i64) -> Result<RangeInclusive<Date>, Failure> {
        let before = jiff::Span::new().days(days.saturating_sub(1));
        self.resolve(today, today, |to| to.checked_sub(before).unwrap_or(Date::MIN))
    }

    fn resolve(
        &self,
        today: Date,
        last: Date,
        first: impl FnOnce(Date) -> Date,
    ) -> Result<RangeInclusive<Date>, Failure> {
        if let Some(date) = self.date {
            return Ok(date.date(today)..=date.date(today));
        }
        let to = self.to.map_or(last, |to| to.date(today));
        let from = self.from.map_or_else(|| first(to), |from| from.date(today));
        if from > to {
            return Err(Failure::Usage(format!("--from {from} is after --to {to}")));
        }
        Ok(from..=to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use rstest::rstest;

    const TODAY: Date = date(2026, 3, 1);

    fn range(from: Option<&str>, to: Option<&str>, date: Option<&str>) -> Range {
        let when = |text: Option<&str>| text.map(|text| When::parse(text).unwrap());
        Range { from: when(from), to: when(to), date: when(date) }
    }

    #[rstest]
    #[case(None, None, None, "2026-02-27..=2026-03-01")]
    #[case(None, Some("yesterday"), None, "2026-02-26..=2026-02-28")]
    #[case(Some("2026-01-01"), None, None, "2026-01-01..=2026-03-01")]
    #[case(None, None, Some("yesterday"), "2026-02-28..=2026-02-28")]
    #[case(Some("today"), Some("today"), None, "2026-03-01..=2026-03-01")]
    fn which_days(
        #[case] from: Option<&str>,
        #[case] to: Option<&str>,
        #[case] date: Option<&str>,
        #[case] days: &str,
    ) {
        assert_eq!(format!("{:?}", range(from, to, date).last_days(TODAY, 3).unwrap()), days);
    }

    #[test]
    fn the_last_is_not_before_the_first() {
        let Err(Failure::Usage(why)) = range(Some("today"), Some("yesterday"), None).all_unless_told(TODAY) else {
            panic!("it is")
        };
        assert_eq!(why, "--from 2026-03-01 is after --to 2026-02-28");
    }

    #[rstest]
    #[case("")]
    #[case("tomorrow")]
    #[case("2026-6-1")]
    #[case("2026-02-30")]
    #[case("2026-06-01T12:00")]
    #[case("01.06.2026")]
    fn what_is_no_date(#[case] text: &str) {
        When::parse(text).unwrap_err();
    }
}
