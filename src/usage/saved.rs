//! A name's usage as bytes, so that the next process goes on where this one ended.

use super::Usage;

/// The first byte, for the day on which the rest changes its meaning.
const VERSION: u8 = 1;

/// Bytes that are no usage.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableState {
    /// Written by another version.
    #[error("its version is {0}, not {VERSION}")]
    Version(u8),
    /// Damaged.
    #[error("it is damaged")]
    Damaged,
}

impl Usage {
    /// Everything but what [`Self::take_closed`] gives. Empty if there is nothing that a start would need.
    pub fn save(&self) -> Vec<u8> {
        if self.window.is_empty() && self.unsealed.is_empty() && !self.is_open() {
            return Vec::new();
        }
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn load(bytes: &[u8]) -> Result<Self, UnreadableState> {
        match bytes.split_first() {
            None => Ok(Self::default()),
            Some((&VERSION, rest)) => {
                let mut usage: Self = postcard::from_bytes(rest).map_err(|_| UnreadableState::Damaged)?;
                usage.recent.iter_mut().for_each(|visit| visit.recalled = visit.count);
                Ok(usage)
            }
            Some((&version, _)) => Err(UnreadableState::Version(version)),
        }
    }

    /// Takes in what was saved before this process began to count, early or late.
    pub fn resume(&mut self, saved: Self) {
        if *self == Self::default() {
            *self = saved;
            return;
        }
        for old in saved.recent {
            self.visit(old.bucket, old.pass, |visit| {
                visit.recall(old.count);
                visit.judged = visit.judged.max(old.judged);
            });
        }
        self.window.merge(&saved.window);
        saved.days.into_iter().for_each(|peak| self.raise_peak(peak));
        self.held.merge(&saved.held);
        for unsealed in saved.unsealed {
            if !self.unsealed.iter().any(|known| known.day == unsealed.day) {
                self.unsealed.push(unsealed);
            }
        }
        self.closed.extend(saved.closed);
    }
}
