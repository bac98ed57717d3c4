//! Prometheus text, parsed.

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    series: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads what `/metrics` answered; panics at a line that is not Prometheus text.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { series: lines.map(parse_line).collect() }
    }

    /// The value of the one series of that name with all of these labels; `None` if there is none.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.matching(name, labels).collect();
        assert!(found.len() <= 1, "several series of {name}{labels:?}: {found:?}");
        found.first().copied()
    }

    /// The sum over every series of that name with all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// Whether a family is exposed at all.
    pub fn has(&self, name: &str) -> bool {
        self.series.iter().any(|series| series.name == name)
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Every value of a label, of every series, without repetition.
    pub fn label_values(&self, label: &str) -> Vec<&str> {
        let all = self.series.iter().flat_map(|series| &series.labels);
        let mut values: Vec<_> = all.filter(|(l, _)| l == label).map(|(_, v)| v.as_str()).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = f64> + 'a {
        let fits = move |series: &&Series| {
            let has = |(label, value): &(&str, &str)| series.labels.iter().any(|(l, v)| l == label && v == value);
            series.name == name && labels.iter().all(has)
        };
        self.series.iter().filter(fits).map(|series| series.value)
    }
}

#[track_caller]
fn parse_line(line: &str) -> Series {
    let parse = || {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels.split_terminator("\",").map(|pair| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        Some(Series { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
    };
    parse().unwrap_or_else(|| panic!("not Prometheus text: {line:?}"))
}
