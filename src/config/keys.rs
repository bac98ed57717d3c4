//! The keys of the configuration file, all in this one place, and what to say of a key that is none.

use super::diagnostic::{Wrong, shown};

/// The keys of one kind of table.
#[derive(Debug)]
pub struct Keys {
    /// The table as one writes its header; empty for the top level of the main file.
    pub table: &'static str,
    /// What can be written in it.
    pub known: &'static [&'static str],
    /// What a later version will know.
    pub later: &'static [&'static str],
}

/// The top level of the main file.
pub const TOP: Keys = Keys {
    table: "",
    known: &[
        "data_dir",
        "timezone",
        "include",
        "on_broken_certificate",
        "shutdown_grace",
        "workers",
        "listen",
        "limits",
        "log",
        "access_log",
        "store",
        "plans",
        "fallback",
        "acme",
        "vault",
        "domain",
        "certificate",
    ],
    later: &["package", "unbound"],
};

/// The top level of an included file.
pub const INCLUDED: Keys = Keys { table: "an included file", known: &["domain", "certificate"], later: &[] };

/// Addresses.
pub const LISTEN: Keys = Keys {
    table: "[listen]",
    known: &["https", "http", "admin", "metrics", "admin_hosts", "default", "public_https_port", "trusted_proxies"],
    later: &["proxy_protocol_from"],
};

/// What a client may take.
pub const LIMITS: Keys = Keys {
    table: "[limits]",
    known: &[
        "handshake_timeout",
        "header_timeout",
        "idle_timeout",
        "max_header",
        "max_streams",
        "max_connections",
        "max_connections_per_client",
    ],
    later: &[],
};

/// The program's own log.
pub const LOG: Keys = Keys { table: "[log]", known: &["level", "format"], later: &[] };

/// Who asked for what.
pub const ACCESS_LOG: Keys = Keys { table: "[access_log]", known: &["path", "format"], later: &[] };

/// What is remembered, and how long.
pub const STORE: Keys = Keys { table: "[store]", known: &["keep_series", "keep_days"], later: &["url"] };

/// One plan.
pub const PLAN: Keys =
    Keys { table: "[plans.NAME]", known: &["max_qps", "burst", "throttle"], later: &["max_delay", "package"] };

/// The operator's own last-but-one resort.
pub const FALLBACK: Keys = Keys { table: "[fallback]", known: &["cert", "key"], later: &[] };

/// Who issues certificates, and how.
pub const ACME: Keys = Keys {
    table: "[acme]",
    known: &[
        "email",
        "agree_to_terms",
        "key",
        "challenge",
        "preferred_chain",
        "standby",
        "max_orders",
        "dns",
        "on_demand",
        "ca",
    ],
    later: &[],
};

/// Who sets TXT records.
pub const ACME_DNS: Keys = Keys {
    table: "[acme.dns]",
    known: &[
        "provider",
        "server",
        "key_name",
        "key_algorithm",
        "key_file",
        "key_env",
        "settings",
        "secret_files",
        "secret_env",
        "command",
        "command_timeout",
        "resolvers",
        "propagation_timeout",
        "ttl",
    ],
    later: &[],
};

/// The same for one domain or certificate. Not in [`ALL`]: a key astray is told its home once.
pub const DNS: Keys = Keys { table: "dns", ..ACME_DNS };

/// Names that nobody wrote into the configuration.
pub const ON_DEMAND: Keys =
    Keys { table: "[acme.on_demand]", known: &["site", "allow", "ask", "max_names", "max_new_per_hour"], later: &[] };

/// One certificate authority.
pub const CA: Keys = Keys {
    table: "[[acme.ca]]",
    known: &["name", "directory", "ca_file", "email", "eab", "profile", "preferred_chain", "standby_only"],
    later: &[],
};

/// An account that the operator already has with an authority.
pub const EAB: Keys = Keys { table: "eab", known: &["kid", "hmac_key_file", "hmac_key_env"], later: &[] };

/// Who can open the keys that are kept.
pub const VAULT: Keys =
    Keys { table: "[vault]", known: &["key_file", "key_env", "credential", "exec", "transit"], later: &[] };

/// A key in HashiCorp Vault.
pub const TRANSIT: Keys = Keys {
    table: "transit",
    known: &["address", "mount", "key", "token_file", "token_env", "namespace", "ca_file"],
    later: &[],
};

/// One domain.
pub const DOMAIN: Keys = Keys {
    table: "[[domain]]",
    known: &["name", "tenant", "plan", "origin", "origin_tls", "hsts", "max_body", "timeouts", "acme", "certificate"],
    later: &["access_log", "package", "proxy_protocol", "unbound"],
};

/// How an `https` origin is verified.
pub const ORIGIN_TLS: Keys = Keys { table: "origin_tls", known: &["sni", "ca", "insecure"], later: &[] };

/// How long an origin may take.
pub const TIMEOUTS: Keys = Keys { table: "timeouts", known: &["connect", "response", "idle"], later: &[] };

/// One certificate pair of a domain.
pub const CERTIFICATE: Keys = Keys { table: "[[domain.certificate]]", known: &["cert", "key"], later: &[] };

/// How one domain's certificates are obtained.
pub const DOMAIN_ACME: Keys =
    Keys { table: "[domain.acme]", known: &["ca", "challenge", "key", "profile", "standby", "dns"], later: &[] };

/// One certificate for several names.
pub const GROUP: Keys = Keys {
    table: "[[certificate]]",
    known: &["names", "tenant", "ca", "challenge", "key", "profile", "standby", "dns"],
    later: &[],
};

/// Every kind of table of the main file.
pub const ALL: [&Keys; 21] = [
    &TOP,
    &LISTEN,
    &LIMITS,
    &LOG,
    &ACCESS_LOG,
    &STORE,
    &PLAN,
    &FALLBACK,
    &ACME,
    &ACME_DNS,
    &ON_DEMAND,
    &CA,
    &EAB,
    &VAULT,
    &TRANSIT,
    &DOMAIN,
    &ORIGIN_TLS,
    &TIMEOUTS,
    &DOMAIN_ACME,
    &CERTIFICATE,
    &GROUP,
];

impl Keys {
    /// Whether `key` can be written here.
    pub fn knows(&self, key: &str) -> bool {
        self.known.contains(&key)
    }

    /// What to say of `key`, which is none of the known ones.
    pub fn unknown(&self, key: &str) -> Wrong {
        if self.table == INCLUDED.table {
            let remedy = match TOP.knows(key) {
                true => "included files hold only `[[domain]]` and `[[certificate]]` tables: write it in the main file",
                false => "included files hold only `[[domain]]` and `[[certificate]]` tables",
            };
            return Wrong::new(format!("`{}` in an included file", shown(key)), remedy);
        }
        if self.later.contains(&key) {
            return Wrong::new(format!("`{key}` is not supported by this version of lockgate"), "leave it out");
        }
        let here = if self.table.is_empty() { "at the top level".to_owned() } else { format!("in `{}`", self.table) };
        let message = format!("unknown key `{}` {here}", shown(key));
        if let Some(meant) = nearest(key, self.known.iter().copied()) {
            return Wrong::new(message, format!("did you mean `{meant}`?"));
        }
        Wrong::new(
            message,
            match self.home_of(key) {
                Some(keys) if keys.table.is_empty() => {
                    format!("`{key}` belongs at the top of the file, above the first `[table]`")
                }
                Some(keys) => format!("`{key}` belongs in `{}`", keys.table),
                None => self.listed(),
            },
        )
    }

    /// The other table that `key` belongs in.
    pub fn home_of(&self, key: &str) -> Option<&'static Keys> {
        ALL.into_iter().find(|keys| keys.knows(key) && keys.table != self.table)
    }

    /// Whether `key`, unknown here, was probably meant to be `known`.
    pub fn means(&self, key: &str, known: &str) -> bool {
        !self.knows(key) && nearest(key, self.known.iter().copied()) == Some(known)
    }

    fn listed(&self) -> String {
        format!("the keys here are {}", list(self.known.iter().copied()))
    }
}

/// `a`, `b` and `c`, each in backquotes.
pub fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    joined(words, "and")
}

/// `a`, `b` or `c`, each in backquotes.
pub fn either(words: &[&str]) -> String {
    joined(words.iter().copied(), "or")
}

fn joined<'a>(words: impl IntoIterator<Item = &'a str>, before_last: &str) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("`{}`", shown(word))).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} {before_last} {last}", words.join(", ")),
        None => String::new(),
    }
}

/// The word most like `text`, if one is so much like it that it was probably meant.
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No key or plan is longer; and the cost grows with the square.
    const MAX_CHARS: usize = 64;
    let normal = |word: &str| -> Vec<char> { word.to_lowercase().replace('-', "_").chars().collect() };
    let text = normal(text.get(..text.len().min(4 * MAX_CHARS)).unwrap_or(text));
    if text.len() > MAX_CHARS {
        return None;
    }
    let allowed = 1 + text.len() / 5;
    words
        .into_iter()
        .filter(|word| word.chars().count().abs_diff(text.len()) <= allowed)
        .map(|word| (distance(&text, &normal(word)), word))
        .filter(|(distance, word)| *distance <= allowed && *distance < word.chars().count().div_ceil(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many letters to insert, drop, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (i, &ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        row.push(i + 1);
        let mut previous_b = None;
        for (j, &cb) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut least = (cell(&last, j) + usize::from(ca != cb)).min(cell(&last, j + 1) + 1).min(cell(&row, j) + 1);
            if j > 0 && previous_a == Some(cb) && previous_b == Some(ca) {
                least = least.min(cell(&before_last, j - 1) + 1);
            }
            row.push(least);
            previous_b = Some(cb);
        }
        before_last = std::mem::replace(&mut last, row);
        previous_a = Some(ca);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("orgin", Some("origin"))]
    #[case("nmae", Some("name"))]
    #[case("names", Some("name"))]
    #[case("max-body", Some("max_body"))]
    #[case("Origin", Some("origin"))]
    #[case("certificates", Some("certificate"))]
    #[case("backend", None)]
    #[case("x", None)]
    #[case("", None)]
    #[case(&"é".repeat(500), None)]
    fn a_slip_is_told_from_another_word(#[case] written: &str, #[case] meant: Option<&str>) {
        assert_eq!(nearest(written, DOMAIN.known.iter().copied()), meant);
    }

    #[rstest]
    #[case("", "abc", 3)]
    #[case("abc", "abc", 0)]
    #[case("ab", "ba", 1)]
    #[case("kitten", "sitting", 3)]
    fn distances(#[case] a: &str, #[case] b: &str, #[case] letters: usize) {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars(a), &chars(b)), letters);
    }
}
