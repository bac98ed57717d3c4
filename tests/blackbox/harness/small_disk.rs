//! A file system of its own, which can be full or read-only for everybody and not only in one process's eyes.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::run;
use super::setup::Setup;

/// A small file system in memory, in a folder of its own, unmounted when it goes out of scope.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// One of this size, as mount(8) takes it. `None` where nobody may mount one.
    pub fn mount(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={size}");
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()));
        if mounted.code != 0 {
            eprintln!("not tried: this user may not mount a file system");
            return None;
        }
        Some(Self(folder))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where a proxy keeps its data on it.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// From now on it is `ro` or `rw`.
    #[track_caller]
    pub fn remount(&self, how: &str) {
        let folder: &Path = self.0.path();
        assert_eq!(run(Command::new("mount").arg("-o").arg(format!("remount,{how}")).arg(folder)).code, 0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

impl Setup {
    /// `data_dir` on that disk.
    pub fn keeping_on(self, disk: &SmallDisk) -> Self {
        self.set("data_dir", &format!("'{}'", disk.data_dir().display()))
    }
}
