//! What a recommendation says, to a person.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::report::{HostAdvice, Report, Source};
use crate::advice::{Advice, DayUse, Outcome};
use crate::cli::text;
use crate::logs::ReadLines;
use crate::meter::Bucket;
use crate::plan::Plan;

/// Width of the longest bar.
const BAR_CHARS: f64 = 30.0;
/// Hosts that the closing sentence names; the table has all.
const MAX_HOSTS_NAMED: usize = 5;
/// Hosts of a table.
const MAX_HOSTS_SHOWN: usize = 200;

/// The report, with a line's end at its end; nothing if there is no host in it.
pub(super) fn render(report: &Report) -> String {
    let skipped = skipped(&report.read);
    match report.hosts.as_slice() {
        [] => String::new(),
        [host] => format!("{}{skipped}\n{}\n", details(report, host), advice(&host.host, &host.advice)),
        hosts => format!("{}{skipped}\n{}\n", overview(report), summary(hosts)),
    }
}

/// One line for each host.
fn overview(report: &Report) -> String {
    let mut table = Table::new(&["host", ">requests", ">days", ">peak QPS", "at", "plan", "with grace"]);
    for HostAdvice { host, advice } in report.hosts.iter().take(MAX_HOSTS_SHOWN) {
        table.push([
            host.to_string(),
            advice.requests.to_string(),
            advice.days.len().to_string(),
            format!("{:.1}", advice.peak.peak_qps()),
            local(report, advice.peak.peak_at),
            name(advice.plan.as_ref()),
            name(advice.plan_with_grace.as_ref()),
        ]);
    }
    let more = match report.hosts.len().saturating_sub(MAX_HOSTS_SHOWN) {
        0 => String::new(),
        more => format!("and {} more: --json has them all\n", text::thousands(more as u64)),
    };
    table.render() + &more
}

/// All there is to say of one host.
fn details(report: &Report, host: &HostAdvice) -> String {
    let HostAdvice { host, advice } = host;
    let zone = report.zone.iana_name().unwrap_or("UTC");
    let (first, last) = (local(report, advice.first), local(report, advice.last));
    let mut said = format!("{host}: {} requests from {first} to {last} ({zone})\n\n", advice.requests);

    let mut days = Table::new(&["day", ">requests", ">peak QPS", "at", ""]);
    let highest = advice.peak.peak_qps();
    for day in &advice.days {
        days.push(day_row(report, day, highest));
    }
    said += &days.render();

    if let Some(qps) = &advice.qps {
        said += &format!(
            "\nOf the 10-second buckets, {:.1} % had no request. Of the others, half had at most {} QPS, 90 % {},\n\
             99 % {}, 99.9 % {}, and the busiest {}.\n",
            // Rounded down: nobody has 100 % and a request.
            (qps.idle_share * 1000.0).floor() / 10.0,
            qps.p50,
            qps.p90,
            qps.p99,
            qps.p999,
            qps.max
        );
    }

    let mut plans = Table::new(&["plan", ">QPS", ">alerts", ">throttling alerts", "throttled for"]);
    for outcome in &advice.outcomes {
        plans.push([
            outcome.plan.name.to_string(),
            outcome.plan.max_qps.to_string(),
            outcome.over.to_string(),
            outcome.excessive.to_string(),
            duration(outcome),
        ]);
    }
    let since = match report.source {
        Source::History => " (as far back as every 10 seconds are kept)",
        Source::Log => "",
    };
    said + &format!("\nWhat each plan would have meant{since}:\n\n{}", plans.render())
}

fn day_row(report: &Report, day: &DayUse, highest: f64) -> [String; 5] {
    let chars = (day.peak_qps() / highest * BAR_CHARS).round().max(1.0);
    let at = local(report, day.peak_at);
    [
        day.date.to_string(),
        day.requests.to_string(),
        format!("{:.1}", day.peak_qps()),
        // The date stands in front already, unless the day was counted in another zone.
        at.strip_prefix(&format!("{} ", day.date)).unwrap_or(&at).to_owned(),
        "█".repeat(chars as usize),
    ]
}

/// The advice on one host.
fn advice(host: &str, advice: &Advice) -> String {
    let peak = format!("its busiest 10 seconds had {:.1} QPS", advice.peak.peak_qps());
    let Some(plan) = &advice.plan else {
        let needed = advice.needed_qps();
        let grace = advice.plan_with_grace.as_ref();
        let grace = grace.map(|plan| format!(", though {} would not have throttled it", called(plan)));
        let grace = grace.unwrap_or_default();
        return format!("None of the plans holds {host}: {peak}, so it would need {needed} QPS{grace}.");
    };
    let smaller = advice.outcomes.iter().take_while(|outcome| outcome.plan != *plan).last();
    let smaller = smaller.map(|smaller| match (smaller.excessive, smaller.over) {
        // Only a sealed day's peak was too much for it.
        (0, 0) => format!("; the next smaller plan, {}, is too small", called(&smaller.plan)),
        (0, alerts) => format!("; {} would not have throttled it, but caused alerts ({alerts})", called(&smaller.plan)),
        _ => format!("; with {} it would have been throttled for {}", called(&smaller.plan), duration(smaller)),
    });
    format!("Take {} for {host}: {peak}{}.", called(plan), smaller.unwrap_or_default())
}

/// The advice on many.
fn summary(hosts: &[HostAdvice]) -> String {
    let mut by_plan = BTreeMap::<(u32, &str), usize>::new();
    for plan in hosts.iter().filter_map(|host| host.advice.plan.as_ref()) {
        *by_plan.entry((plan.max_qps, &plan.name)).or_default() += 1;
    }
    let fitting = by_plan.iter().map(|((max_qps, name), hosts)| format!("{name} ({max_qps} QPS) for {hosts}"));
    let fitting = fitting.collect::<Vec<_>>().join(", ");
    let unheld: Vec<_> = hosts.iter().filter(|host| host.advice.plan.is_none()).collect();
    let named = unheld.iter().take(MAX_HOSTS_NAMED);
    let mut named: Vec<_> =
        named.map(|host| format!("{} (would need {} QPS)", host.host, host.advice.needed_qps())).collect();
    if unheld.len() > MAX_HOSTS_NAMED {
        named.push(format!("{} more", unheld.len() - MAX_HOSTS_NAMED));
    }
    match (by_plan.is_empty(), named.is_empty()) {
        (_, true) => format!("Of {} hosts, take {fitting}.", hosts.len()),
        (true, _) => format!("None of the plans holds any of them: {}.", named.join(", ")),
        _ => format!("Of {} hosts, take {fitting}; none of the plans holds {}.", hosts.len(), named.join(", ")),
    }
}

/// What was not counted: it may have been the peak.
fn skipped(read: &ReadLines) -> String {
    if read.skipped == 0 {
        return String::new();
    }
    let places = read.places.iter().take(3).map(|place| format!("{}:{}: {}", place.log, place.line, place.why));
    let places: String = places.map(|place| format!("  {place}\n")).collect();
    format!("\n{} of {} lines were skipped, such as\n{places}", read.skipped, read.lines)
}

fn called(plan: &Plan) -> String {
    format!("{} ({} QPS)", plan.name, plan.max_qps)
}

fn name(plan: Option<&Plan>) -> String {
    plan.map_or_else(|| "none".to_owned(), |plan| plan.name.to_string())
}

fn duration(outcome: &Outcome) -> String {
    match outcome.throttled_secs() {
        0 => "-".to_owned(),
        secs => text::duration(secs),
    }
}

/// A bucket's first moment as the zone's clocks show it.
fn local(report: &Report, bucket: Bucket) -> String {
    match Timestamp::from_second(bucket.start().secs()) {
        Ok(at) => report.zone.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => bucket.start().to_string(),
    }
}

/// Columns as wide as what is in them; those whose title begins with `>` are flush right.
struct Table {
    rows: Vec<Vec<String>>,
    flush_right: Vec<bool>,
}

impl Table {
    fn new(titles: &[&str]) -> Self {
        let flush_right = titles.iter().map(|title| title.starts_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![titles], flush_right }
    }

    fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.into());
    }

    fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.flush_right.len()).map(width).collect();
        let mut said = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.flush_right).map(|((cell, width), flush_right)| {
                if *flush_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            said += cells.collect::<Vec<_>>().join("  ").trim_end();
            said.push('\n');
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::Advisor;
    use crate::logs::{Skipped, Why};
    use crate::usage::Calendar;
    use jiff::tz::TimeZone;

    const START: i64 = 178_027_200;

    fn report(hosts: &[(&str, &[(i64, u64)])]) -> Report {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let mut calendar = Calendar::new(zone.clone());
        let advised = hosts.iter().map(|(host, counts)| {
            let mut advisor = Advisor::new(&Plan::built_in(), &mut calendar, Bucket(START + 30_000));
            counts.iter().for_each(|(bucket, count)| advisor.add(Bucket(START + bucket), *count));
            HostAdvice { host: (*host).into(), advice: advisor.finish([]).unwrap() }
        });
        let advised = advised.collect();
        Report::new(Source::Log, zone, advised)
    }

    #[test]
    fn one_host_is_told_of_in_full() {
        let mut report = report(&[("www.example.com", &[(0, 3), (9_000, 110), (9_001, 213), (20_000, 7)])]);
        let place = |line, why| Skipped { log: "access.log".into(), line, why };
        report.read = ReadLines {
            lines: 335,
            skipped: 2,
            passed_over: 0,
            places: vec![place(7, Why::Unknown), place(90, Why::NoRequest)],
        };
        insta::assert_snapshot!(render(&report));
    }

    #[test]
    fn many_hosts_are_a_table() {
        let hosts: [(&str, &[(i64, u64)]); 4] = [
            ("a.example.com", &[(0, 3), (9_000, 110)]),
            ("*.shop.example.com", &[(0, 1_234)]),
            ("b.example.com", &[(0, 50)]),
            ("c.example.com", &[(0, 101)]),
        ];
        insta::assert_snapshot!(render(&report(&hosts)));
    }

    #[test]
    fn the_advice_fits_the_case() {
        let said = |count| {
            let report = report(&[("a.test", &[(0, count)])]);
            advice("a.test", &report.hosts[0].advice)
        };
        insta::assert_snapshot!([4, 105, 300, 1_050, 2_000].map(said).join("\n"));
    }

    #[test]
    fn the_json_has_a_fixed_shape() {
        let report = report(&[("www.example.com", &[(0, 3), (9_000, 110)])]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(render(&report(&[])), "");
    }
}
