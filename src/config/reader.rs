//! Takes the values out of a TOML table, reporting what is unknown, missing or of the wrong kind.

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Wrong, shown};
use super::keys::{Keys, either};
use super::problems::Problems;
use super::source::Place;

/// A table of a file.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'t, 'i> {
    table: &'t DeTable<'i>,
    keys: &'static Keys,
    /// Its header.
    pub place: Place,
}

/// A value of a table, and what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Value<'t, 'i> {
    /// Its key.
    pub key: &'static str,
    /// The value's own place.
    pub place: Place,
    value: &'t DeValue<'i>,
}

impl<'t, 'i> Reader<'t, 'i> {
    /// Looks into a table and reports the keys that do not belong there.
    pub fn open(table: &'t DeTable<'i>, keys: &'static Keys, place: Place, problems: &mut Problems) -> Self {
        for key in table.keys().filter(|key| !keys.knows(key.get_ref())) {
            // It may stand under a header that was not understood.
            if problems.is_broken(place) && keys.home_of(key.get_ref()).is_some() {
                continue;
            }
            problems.report_as(Place::new(place.file(), key.span()), || keys.unknown(key.get_ref()));
        }
        Self { table, keys, place }
    }

    /// The value of `key`, if it is written.
    pub fn value(&self, key: &'static str) -> Option<Value<'t, 'i>> {
        debug_assert!(self.keys.knows(key), "{key} is not among the keys of {}", self.keys.table);
        let spanned = self.table.get(key)?;
        Some(Value { key, place: Place::new(self.place.file(), spanned.span()), value: spanned.get_ref() })
    }

    /// The value of `key` as `read` understands it; `None` if it is not written, or wrong, which is reported.
    pub fn read<T>(
        &self,
        key: &'static str,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'t, 'i>) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.value(key)?.read(problems, read)
    }

    /// Like [`Reader::read`], into a place that holds the default.
    pub fn read_into<T>(
        &self,
        key: &'static str,
        into: &mut T,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'t, 'i>) -> Result<T, Wrong>,
    ) {
        if let Some(value) = self.read(key, problems, read) {
            *into = value;
        }
    }

    /// Like [`Reader::read`], and reports the key if it is not written; `example` is what one would write.
    pub fn require<T>(
        &self,
        key: &'static str,
        example: &str,
        problems: &mut Problems,
        read: impl FnOnce(&Value<'t, 'i>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if let Some(value) = self.value(key) {
            return value.read(problems, read);
        }
        // Of a misspelt key one complaint is enough.
        if self.has_slip_of(key) {
            return None;
        }
        let message = match self.keys.table {
            "" => format!("`{key}` is missing"),
            table => format!("`{key}` is missing in `{table}`"),
        };
        problems.report_missing(self.place, Wrong::new(message, format!("write `{key} = {example}`")));
        None
    }

    /// The only one of `keys` that is written. That there is none, or more than one, is reported; `example` is what one
    /// would write.
    pub fn one_of(&self, keys: &[&'static str], example: &str, problems: &mut Problems) -> Option<Value<'t, 'i>> {
        let mut written: Vec<Value> = keys.iter().filter_map(|key| self.value(key)).collect();
        written.sort_by_key(|value| value.place);
        match written.as_slice() {
            [one] => return Some(*one),
            [first, second, ..] => {
                let wrong = Wrong::new(
                    format!("`{}` beside `{}`", second.key, first.key),
                    format!("write one of them: {}", either(keys)),
                );
                problems.report_both((second.place, "and here"), (first.place, "here"), wrong);
            }
            [] if keys.iter().any(|key| self.has_slip_of(key)) => {}
            [] => {
                let message = format!("{} is missing in `{}`", either(keys), self.keys.table);
                problems.report_missing(self.place, Wrong::new(message, format!("write `{example}`")));
            }
        }
        None
    }

    /// The entries of the table `key`, whose names are the operator's.
    pub fn entries(&self, key: &'static str, problems: &mut Problems) -> Vec<(&'t str, Value<'t, 'i>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(table) = value.value else {
            problems.report(value.place, value.expected("a table", format!("write `{key} = {{ NAME = \"...\" }}`")));
            return Vec::new();
        };
        let entries = table.iter().map(|(name, element)| {
            let place = Place::new(self.place.file(), element.span());
            (name.get_ref().as_ref(), Value { key, place, value: element.get_ref() })
        });
        entries.collect()
    }

    /// Whether a key was written that was probably meant to be `key`. No table has that many keys, unless somebody wants
    /// this to be slow.
    fn has_slip_of(&self, key: &str) -> bool {
        self.table.keys().take(100).any(|written| self.keys.means(written.get_ref(), key))
    }

    /// The elements of the array `key` that `read` understands, each with its place; the others are reported.
    /// `None` if there is no array.
    pub fn list<T>(
        &self,
        key: &'static str,
        problems: &mut Problems,
        mut read: impl FnMut(&Value<'t, 'i>) -> Result<T, Wrong>,
    ) -> Option<Vec<(Place, T)>> {
        let value = self.value(key)?;
        let DeValue::Array(array) = value.value else {
            let remedy = match value.value {
                DeValue::String(_) => format!("put it in brackets: `{key} = [{}]`", value.written()),
                _ => format!("write `{key} = [\"...\"]`"),
            };
            problems.report(value.place, value.expected("an array of strings", remedy));
            return None;
        };
        let elements = array.iter().filter_map(|element| {
            let place = Place::new(self.place.file(), element.span());
            let element = Value { key, place, value: element.get_ref() };
            Some((place, element.read(problems, &mut read)?))
        });
        Some(elements.collect())
    }

    /// The table `key`, if it is written.
    pub fn table(&self, key: &'static str, keys: &'static Keys, problems: &mut Problems) -> Option<Reader<'t, 'i>> {
        let value = self.value(key)?;
        match value.value {
            DeValue::Table(table) => Some(Reader::open(table, keys, value.place, problems)),
            _ => {
                let remedy = match keys.table.starts_with('[') {
                    true => format!("write `{}` on a line of its own, once, and its keys below", keys.table),
                    false => format!("write `{key} = {{ {} = ... }}`", keys.known.first().unwrap_or(&"key")),
                };
                problems.report(value.place, value.expected("a table", remedy));
                None
            }
        }
    }

    /// The tables `[[key]]`, in order.
    pub fn tables(&self, key: &'static str, keys: &'static Keys, problems: &mut Problems) -> Vec<Reader<'t, 'i>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let remedy = || format!("write `{}`, in two brackets, on a line of its own, and its keys below", keys.table);
        let DeValue::Array(array) = value.value else {
            problems.note_missing_domain();
            let wrong = match value.value {
                DeValue::Table(_) => Wrong::new(format!("`{key}` can be written several times"), remedy()),
                _ => value.expected("a table", remedy()),
            };
            problems.report(value.place, wrong);
            return Vec::new();
        };
        let readers = array.iter().filter_map(|element| {
            let place = Place::new(self.place.file(), element.span());
            match element.get_ref() {
                DeValue::Table(table) => Some(Reader::open(table, keys, place, problems)),
                other => {
                    problems.report(place, Value { key, place, value: other }.expected("a table", remedy()));
                    None
                }
            }
        });
        readers.collect()
    }

    /// The tables `[key.NAME]`, by name.
    pub fn named_tables(
        &self,
        key: &'static str,
        keys: &'static Keys,
        problems: &mut Problems,
    ) -> Vec<(&'t str, Reader<'t, 'i>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let remedy = || format!("write `{}` on a line of its own, and its keys below", keys.table);
        let DeValue::Table(table) = value.value else {
            problems.report(value.place, value.expected("a table", remedy()));
            return Vec::new();
        };
        let readers = table.iter().filter_map(|(name, element)| {
            let place = Place::new(self.place.file(), element.span());
            match element.get_ref() {
                DeValue::Table(table) => Some((name.get_ref().as_ref(), Reader::open(table, keys, place, problems))),
                other => {
                    problems.report(place, Value { key, place, value: other }.expected("a table", remedy()));
                    None
                }
            }
        });
        readers.collect()
    }
}

impl<'t, 'i> Value<'t, 'i> {
    /// The value as `read` understands it, or a report.
    pub fn read<T>(&self, problems: &mut Problems, read: impl FnOnce(&Self) -> Result<T, Wrong>) -> Option<T> {
        match read(self) {
            Ok(value) => Some(value),
            Err(wrong) => {
                problems.report(self.place, wrong);
                None
            }
        }
    }

    /// A string that is not blank.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self) -> Result<&'t str, Wrong> {
        match self.value {
            DeValue::String(text) if text.trim().is_empty() => Err(Wrong::new(
                format!("`{}` is empty", self.key),
                format!("write a value, or leave `{}` out", self.key),
            )),
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(self.expected("a string", format!("write {}", self.quoted()))),
        }
    }

    /// An integer, if it is one; far too large ones are clipped.
    pub fn integer(&self) -> Option<i128> {
        match self.value {
            DeValue::Integer(integer) => {
                Some(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX))
            }
            _ => None,
        }
    }

    /// A string, if it is one, blank or not.
    pub fn string(&self) -> Option<&'t str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// It is something else.
    pub fn boolean(&self) -> Result<bool, Wrong> {
        match self.value {
            DeValue::Boolean(boolean) => Ok(*boolean),
            _ => Err(self.expected("true or false", format!("write `{} = true` or `{} = false`", self.key, self.key))),
        }
    }

    /// The only element of an array of one; the value itself if it is no array. `Err` with how many there are.
    pub fn only(&self) -> Result<Self, usize> {
        match self.value {
            DeValue::Array(array) => match &**array {
                [one] => {
                    let place = Place::new(self.place.file(), one.span());
                    Ok(Self { key: self.key, place, value: one.get_ref() })
                }
                several => Err(several.len()),
            },
            _ => Ok(*self),
        }
    }

    /// Whether it is an array of nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self.value, DeValue::Array(array) if array.is_empty())
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// That the value is not `what` it should be.
    pub fn expected(&self, what: &str, remedy: impl Into<String>) -> Wrong {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        Wrong::new(format!("`{}` must be {what}, not {found}", self.key), remedy)
    }

    /// A scalar as it would be written, with quotes if it is a string.
    pub fn written(&self) -> String {
        match self.value {
            DeValue::String(text) => format!("\"{}\"", shown(text)),
            DeValue::Integer(integer) => shown(&integer.to_string()),
            DeValue::Float(float) => shown(float.as_str()),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(datetime) => datetime.to_string(),
            DeValue::Array(_) | DeValue::Table(_) => "...".to_owned(),
        }
    }

    fn quoted(&self) -> String {
        match self.value {
            DeValue::String(_) => self.written(),
            _ => format!("\"{}\"", self.written()),
        }
    }
}
