//! Certificate files that change: the pen is held before they are looked at and after, never while the disk is waited
//! for. A server of files that is gone then stops whoever polls, and nobody else.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BrokenPair, Control};
use crate::certificate::{Certificate, PairPaths};
use crate::pairs::{PairError, PairFiles};

/// Certificate pairs looked at per call of [`poll_pairs`]: a hundred thousand take ten calls.
const PAIRS_PER_POLL: usize = 10_000;

/// Looks whether certificate files have changed, reads those that have, and publishes if any is good. Call it once a
/// second, one call after the other; it looks at a bounded number each time. Blocks on the disk, and holds the pen for a
/// moment.
pub fn poll_pairs(control: &Mutex<Control>) -> Vec<BrokenPair> {
    let due = lock(control).due_pairs();
    let read = due.read();
    if read.is_empty() { Vec::new() } else { lock(control).take_in_pairs(read) }
}

/// Pairs to look at, and the door to them.
struct DuePairs {
    files: Arc<PairFiles>,
    watched: Arc<[PairPaths]>,
    due: Range<usize>,
}

/// What was read of pairs whose files have changed.
type ReadPairs = Vec<(PairPaths, Result<Arc<Certificate>, PairError>)>;

impl DuePairs {
    /// Reads those that have changed. Blocks on the disk.
    fn read(self) -> ReadPairs {
        let due = self.watched.get(self.due).unwrap_or_default();
        let changed: Vec<PairPaths> = self.files.changed(due).into_iter().filter_map(|i| due.get(i)).cloned().collect();
        let read = self.files.load_all(&changed);
        changed.into_iter().zip(read).collect()
    }
}

impl Control {
    /// The pairs whose turn it is.
    fn due_pairs(&mut self) -> DuePairs {
        let end = self.next_watched.saturating_add(PAIRS_PER_POLL).min(self.watched.len());
        let due = self.next_watched..end;
        self.next_watched = if end == self.watched.len() { 0 } else { end };
        DuePairs { files: Arc::clone(&self.pairs), watched: Arc::clone(&self.watched), due }
    }

    /// Takes in what was read. A reload in between may have other pairs, and may have read the same ones later.
    fn take_in_pairs(&mut self, mut read: ReadPairs) -> Vec<BrokenPair> {
        let count = read.len();
        read.retain(|(pair, _)| self.watched.binary_search(pair).is_ok());
        if read.len() < count {
            self.pairs.forget_others(&self.watched.iter().cloned().collect());
        }
        let (mut good, broken) = self.sort_out(read);
        // Whoever read last is right; should that have been this poll, by files that have changed since, the next one sees
        // that they have.
        good.retain(|(pair, certificate)| self.pairs.gave_last(pair, certificate));
        if !good.is_empty() {
            self.good.extend(good);
            self.files_read += 1;
            self.publish();
        }
        broken
    }
}

/// The pen. If its last holder panicked, the world it published before is still whole.
fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::certificate::fixture::{NOW, pair};
    use crate::control::Blueprint;
    use crate::name::DomainName;
    use crate::site::{OriginSpec, SiteSpec};
    use crate::snapshot::Live;

    const NAME: &str = "www.example.com";

    /// A domain with files of its own.
    struct World {
        dir: TempDir,
        control: Control,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self { dir: TempDir::new().unwrap(), control: Control::new(Arc::new(Live::default())) };
            world.write();
            world.reload(true);
            world
        }

        fn files(&self) -> PairPaths {
            PairPaths { cert: self.dir.path().join("www.pem"), key: self.dir.path().join("www.key") }
        }

        /// Writes another certificate; its fingerprint.
        fn write(&self) -> [u8; 32] {
            let made = pair(&[NAME]).pem();
            for (path, text) in [(self.files().cert, &made.cert), (self.files().key, &made.key)] {
                // Another file each time: the file system's clock ticks every few milliseconds only.
                let new = path.with_extension("new");
                fs::write(&new, text).unwrap();
                fs::rename(new, path).unwrap();
            }
            made.parse().fingerprint()
        }

        fn reload(&mut self, has_files: bool) {
            let spec = SiteSpec::new(DomainName::parse(NAME).unwrap(), OriginSpec::http("127.0.0.1", 1));
            let certificates = has_files.then(|| self.files()).into_iter().collect();
            let spec = SiteSpec { certificates, ..spec };
            let blueprint = Blueprint { domains: [Arc::new(spec)].into(), ..Blueprint::default() };
            assert!(self.control.apply(blueprint).unwrap().is_empty());
        }

        fn poll(&mut self) -> Vec<BrokenPair> {
            let read = self.control.due_pairs().read();
            self.control.take_in_pairs(read)
        }

        /// The fingerprint of what serves, if its files do.
        fn serves(&self) -> Option<[u8; 32]> {
            let site = self.control.live.snapshot().site(NAME).cloned().unwrap();
            let good = self.control.good.get(&self.files())?;
            assert!(site.certificates.own_until(NOW).is_some());
            Some(good.fingerprint())
        }
    }

    #[test]
    fn what_has_changed_is_read_and_served() {
        let mut world = World::new();
        let (before, edition) = (world.serves(), world.control.edition());
        assert!(world.poll().is_empty());
        assert_eq!((world.serves(), world.control.edition()), (before, edition));
        let written = world.write();
        assert!(world.poll().is_empty());
        assert_eq!((world.serves(), world.control.edition()), (Some(written), edition + 1));
        fs::write(world.files().key, "no key").unwrap();
        let broken = world.poll();
        assert!(matches!(&broken[..], [BrokenPair { keeps_serving: true, .. }]), "{broken:?}");
        assert!(world.poll().is_empty(), "news once");
        assert_eq!(world.serves(), Some(written));
    }

    #[test]
    fn a_reload_in_between_that_read_later_is_right() {
        let mut world = World::new();
        world.write();
        let read = world.control.due_pairs().read();
        let written = world.write();
        world.reload(true);
        assert!(world.control.take_in_pairs(read).is_empty());
        assert_eq!(world.serves(), Some(written));
    }

    #[test]
    fn a_reload_in_between_that_read_earlier_is_overtaken() {
        let mut world = World::new();
        let due = world.control.due_pairs();
        world.reload(true);
        let written = world.write();
        let read = due.read();
        assert!(world.control.take_in_pairs(read).is_empty());
        assert_eq!(world.serves(), Some(written));
    }

    #[test]
    fn files_that_a_reload_gave_up_in_between_are_forgotten() {
        let mut world = World::new();
        let due = world.control.due_pairs();
        world.write();
        world.reload(false);
        let read = due.read();
        assert_eq!(read.len(), 1);
        assert!(world.control.take_in_pairs(read).is_empty());
        assert_eq!(world.serves(), None);
        assert_eq!(world.control.pairs.changed(&[world.files()]), [0], "nothing is remembered of them");
        let written = world.write();
        world.reload(true);
        assert_eq!(world.serves(), Some(written));
    }
}
