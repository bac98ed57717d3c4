//! `include`: which files a pattern names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::diagnostic::{Wrong, shown};

/// The files named so far, so that none is read twice.
#[derive(Debug)]
pub struct Included {
    main: Option<PathBuf>,
    seen: HashSet<PathBuf>,
}

impl Included {
    /// None yet; `main` is the file that includes.
    pub fn new(main: &Path) -> Self {
        Self { main: main.canonicalize().ok(), seen: HashSet::new() }
    }

    /// The files that `pattern` names from the directory `base` and that no earlier one named, sorted.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn expand(&mut self, pattern: &str, base: &Path) -> Result<Vec<PathBuf>, Wrong> {
        let mut files = matches(pattern, base)?;
        let is_main = |file: &Path| self.main.is_some() && file.canonicalize().ok() == self.main;
        if files.iter().any(|file| is_main(file)) {
            let message = format!("`{}` includes the file that it is written in", shown(pattern));
            return Err(Wrong::new(
                message,
                "keep the included files in a directory of their own: \"domains.d/*.toml\"",
            ));
        }
        // A file that does not exist is kept: reading it says why.
        files.retain(|file| self.seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
        Ok(files)
    }
}

fn matches(pattern: &str, base: &Path) -> Result<Vec<PathBuf>, Wrong> {
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![base.join(pattern)]);
    }
    let cannot = |why: String| {
        Wrong::new(
            format!("`{}` is not a pattern of files: {why}", shown(pattern)),
            "write one as in \"domains.d/*.toml\"",
        )
    };
    let whole = if Path::new(pattern).is_absolute() || base.as_os_str().is_empty() {
        pattern.to_owned()
    } else {
        let base = base.to_str().ok_or_else(|| cannot("the directory's own name is not UTF-8".to_owned()))?;
        format!("{}/{pattern}", Pattern::escape(base))
    };
    // Hidden files are editors' business.
    let options =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let mut files = Vec::new();
    for file in glob::glob_with(&whole, options).map_err(|e| cannot(e.msg.to_owned()))? {
        let file = file.map_err(|e| {
            let message = format!("`{}` cannot be read: {}", shown(&e.path().to_string_lossy()), e.error());
            Wrong::new(message, "let the user that runs lockgate read the directory")
        })?;
        if !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
