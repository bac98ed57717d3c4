//! One thing looked at, and the report of all.

use std::fmt;

use serde::Serialize;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Which `[[domain]]` serves the name.
    Serving,
    /// How its certificate is to be had.
    Issuance,
    /// Its name servers' answers.
    Dns,
    /// One IPv4 address of its.
    A,
    /// One IPv6 address of its.
    Aaaa,
    /// Plain HTTP on one address.
    #[serde(rename = "port_80")]
    Port80,
    /// TLS on one address.
    #[serde(rename = "port_443")]
    Port443,
    /// Who may issue.
    Caa,
    /// The server behind.
    Origin,
    /// What serves, and what failed.
    Certificate,
}

impl What {
    /// As people read it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Issuance => "issuance",
            Self::Dns => "DNS",
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Port80 => "port 80",
            Self::Port443 => "port 443",
            Self::Caa => "CAA",
            Self::Origin => "origin",
            Self::Certificate => "certificate",
        }
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something has to be done.
    Wrong,
}

/// One thing looked at: what is so, and what to do about it. Sentences without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: What,
    /// How it is.
    pub state: State,
    /// What is so.
    pub says: String,
    /// What to do; there always is something where something is wrong.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(what: What, says: impl Into<String>) -> Self {
        Self { what, state: State::Ok, says: says.into(), remedy: None }
    }

    pub(super) fn note(what: What, says: impl Into<String>) -> Self {
        Self { what, state: State::Note, says: says.into(), remedy: None }
    }

    pub(super) fn wrong(what: What, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, state: State::Wrong, says: says.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// No more than a note, unless `is_wrong`.
    pub(super) fn only_if(self, is_wrong: bool) -> Self {
        let state = if self.state == State::Wrong && !is_wrong { State::Note } else { self.state };
        Self { state, ..self }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The name.
    pub name: String,
    /// In the order of cause and effect.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_fine(&self) -> bool {
        self.findings.iter().all(|finding| finding.state != State::Wrong)
    }

    /// What to do first: about the first cause. `None`: nothing.
    pub fn first_remedy(&self) -> Option<&str> {
        self.findings.iter().find(|finding| finding.state == State::Wrong)?.remedy.as_deref()
    }
}

/// For scripts: `{name, findings: [{what, state, says, remedy}], first_remedy}`.
impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut report = serializer.serialize_struct("Report", 3)?;
        report.serialize_field("name", &self.name)?;
        report.serialize_field("findings", &self.findings)?;
        report.serialize_field("first_remedy", &self.first_remedy())?;
        report.end()
    }
}

/// For people: a line for each thing looked at, what to do about it beneath, and at the end where to begin.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { what, state, says, remedy } in &self.findings {
            let mark = match state {
                State::Ok => '✓',
                State::Note => '·',
                State::Wrong => '✗',
            };
            writeln!(f, "{mark} {}: {}", what.label(), printable(says))?;
            if let Some(remedy) = remedy {
                writeln!(f, "    {}", printable(remedy))?;
            }
        }
        match self.first_remedy() {
            Some(remedy) => write!(f, "\nThe one thing to do: {}.", printable(remedy)),
            None => write!(f, "\nNothing is wrong with {}.", self.name),
        }
    }
}

/// Servers' and authorities' own words for a terminal, which obeys control characters.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
