//! Programs of the operator's.

use std::path::Path;

use super::diagnostic::{Wrong, shown};
use super::problems::Problems;
use super::reader::Reader;

/// A program and its first arguments; a program with a slash is relative to the directory of the file that names it,
/// others are looked for in `PATH`.
pub fn read(table: &Reader, key: &'static str, base: &Path, problems: &mut Problems) -> Option<Vec<String>> {
    let value = table.value(key)?;
    let words = table.list(key, problems, |v| {
        let word = v.string().ok_or_else(|| v.expected("an array of strings", format!("write `{key} = [\"...\"]`")))?;
        if word.contains('\0') {
            return Err(Wrong::new(format!("`{}` has a NUL in it", shown(word)), "leave it out"));
        }
        Ok(word.to_owned())
    })?;
    let mut words: Vec<String> = words.into_iter().map(|(_, word)| word).collect();
    let example = format!("write `{key} = [\"/usr/local/bin/program\"]`");
    match words.first_mut() {
        Some(program) if program.trim().is_empty() => {
            problems.report(value.place, Wrong::new(format!("`{key}` names no program"), example));
            return None;
        }
        None if value.is_empty() => {
            problems.report(value.place, Wrong::new(format!("`{key}` names no program"), example));
            return None;
        }
        Some(program) if program.contains('/') => *program = base.join(&*program).to_string_lossy().into_owned(),
        Some(_) => {}
        None => return None,
    }
    Some(words)
}
