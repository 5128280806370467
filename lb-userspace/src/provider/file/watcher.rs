//! Decides when the document is read: soon after a change, never in the middle of one, and now and then anyway.
//!
//! Directories are watched, not the file: an atomic rename gives the name another inode, and Kubernetes swaps a
//! symbolic link beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::{Outcome, Source};

/// One change may be several events; they are over when none came for so long. Two readings are at least this long apart.
const QUIET: Duration = Duration::from_millis(5);
/// A steady stream of events does not put off the reading for longer than this.
const QUIET_MAX: Duration = Duration::from_millis(50);
/// A writer that keeps the file open for longer than this is not waited for.
const WRITER_MAX: Duration = Duration::from_secs(2);
/// A document that cannot be used is read again after this time before it is called wrong.
const DOUBT: Duration = Duration::from_millis(50);
/// Without any event: an event may have been lost, or never sent (network file systems).
const REREAD: Duration = Duration::from_secs(5);
/// Where nothing can be watched (no directory yet, no inotify instances left).
const POLL: Duration = Duration::from_millis(50);

/// Refreshes `source` until nobody wants it.
pub(super) fn run(path: &Path, source: &mut Source) {
    let mut watch = Watch::new(path);
    let mut anew = true;
    loop {
        // Watched before it is read: a change after the reading then makes an event.
        watch.arm(anew);
        let start = Instant::now();
        let outcome = source.refresh(!anew);
        // At most half of the time is spent on reading, however often there is something new.
        watch.rested = Instant::now() + QUIET.max(start.elapsed());
        let wait = match outcome {
            Outcome::Unwanted => return,
            Outcome::Doubtful => DOUBT,
            Outcome::Settled if watch.armed() => REREAD,
            Outcome::Settled => POLL,
        };
        anew = !watch.wait(wait, &|| source.looks_changed());
    }
}

/// The watched directories and what their events said about the document.
struct Watch {
    path: PathBuf,
    watcher: Option<RecommendedWatcher>,
    events: Receiver<notify::Result<Event>>,
    directories: BTreeSet<PathBuf>,
    /// The document's own name, and what it resolves to.
    files: BTreeSet<PathBuf>,
    /// Somebody has written and not closed yet.
    writing: bool,
    /// The last event was the end of a change: a file was closed, or took the name.
    finished: bool,
    /// When the next reading may be.
    rested: Instant,
}

impl Watch {
    fn new(path: &Path) -> Self {
        let (sender, events) = mpsc::channel();
        let watcher = notify::recommended_watcher(sender)
            .inspect_err(|error| {
                warn!(target: "lb::provider", %error, "cannot watch files; reading the cluster file often instead");
            })
            .ok();
        let path = path.to_path_buf();
        Self {
            path,
            watcher,
            events,
            directories: BTreeSet::new(),
            files: BTreeSet::new(),
            writing: false,
            finished: false,
            rested: Instant::now(),
        }
    }

    fn armed(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Watches the directories in which the document's name and its target are. `anew`: also those already watched,
    /// whose names may stand for other directories by now.
    fn arm(&mut self, anew: bool) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut files = BTreeSet::new();
        let directory = self.path.parent().and_then(|parent| parent.canonicalize().ok());
        if let (Some(directory), Some(name)) = (directory, self.path.file_name()) {
            files.insert(directory.join(name));
        }
        files.extend(self.path.canonicalize().ok());
        let wanted: BTreeSet<PathBuf> = files
            .iter()
            .filter_map(|file| file.parent().map(Path::to_path_buf))
            .collect();
        for old in self.directories.iter().filter(|old| anew || !wanted.contains(*old)) {
            // It fails where the directory is gone, and its watch with it.
            let _ = watcher.unwatch(old);
        }
        let kept: BTreeSet<PathBuf> = if anew {
            BTreeSet::new()
        } else {
            self.directories.intersection(&wanted).cloned().collect()
        };
        let added = wanted
            .difference(&kept)
            .filter(|new| watcher.watch(new, RecursiveMode::NonRecursive).is_ok());
        self.directories = kept.iter().chain(added).cloned().collect();
        self.files = files;
    }

    /// Waits for a change, at most so long, and then until it is over. Whether there was one. `looks_changed` tells whether the
    /// document looks other than when it was read.
    fn wait(&mut self, timeout: Duration, looks_changed: &dyn Fn() -> bool) -> bool {
        if !self.next(timeout, looks_changed) {
            return false;
        }
        let first = Instant::now();
        loop {
            let patience = if self.writing { WRITER_MAX } else { QUIET_MAX };
            let left = patience.saturating_sub(first.elapsed());
            if left.is_zero() {
                self.writing = false;
                return true;
            }
            let quiet = match (self.writing, self.finished) {
                (true, _) => left,
                (false, true) => self.rested.saturating_duration_since(Instant::now()),
                (false, false) => QUIET.min(left),
            };
            // Also without any time left: what is there already belongs to this change.
            if !self.next(quiet, looks_changed) && !self.writing {
                return true;
            }
        }
    }

    /// Waits for an event that may concern the document, at most so long. Whether there was one.
    fn next(&mut self, timeout: Duration, looks_changed: &dyn Fn() -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Ok(event)) if !self.note(&event, looks_changed) => {}
                // Or an error: events were lost.
                Ok(_) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(left);
                    return false;
                }
            }
        }
    }

    /// Takes notice of an event. Whether it may concern the document.
    fn note(&mut self, event: &Event, looks_changed: &dyn Fn() -> bool) -> bool {
        let ours = event.paths.iter().any(|path| self.files.contains(path));
        // A link on the way to the document may have another name; most often it is a file that will take the document's
        // place, and to read the document now would only put off reading that one.
        let watched = || event.paths.iter().any(|path| self.directories.contains(path));
        if !ours && !event.need_rescan() && !watched() && !looks_changed() {
            return false;
        }
        self.finished = false;
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.writing &= !ours;
                self.finished = ours;
            }
            // Our own reading, among others.
            EventKind::Access(_) => return false,
            EventKind::Modify(ModifyKind::Data(_)) => self.writing |= ours,
            // Said again of both names together.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return false,
            EventKind::Modify(ModifyKind::Name(mode)) => {
                self.writing &= !ours;
                self.finished = ours && mode == RenameMode::To;
            }
            EventKind::Remove(_) => self.writing &= !ours,
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange};

    use super::*;

    #[test]
    fn another_file_is_no_reason_to_read_until_the_document_looks_different() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let document = directory.join("cluster.toml");
        std::fs::write(&document, "").unwrap();
        let mut watch = Watch::new(&document);
        watch.arm(true);
        let event = |kind, path: &Path| Event::new(kind).add_path(path.to_path_buf());
        let beside = directory.join("cluster.toml.new");
        let made = EventKind::Create(CreateKind::File);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        for kind in [made, written, moved] {
            assert!(!watch.note(&event(kind, &beside), &|| false));
            assert!(
                watch.note(&event(kind, &beside), &|| true),
                "it may be on the way there"
            );
        }
        assert!(watch.note(&event(written, &document), &|| false));
        assert!(watch.writing);
        // Of the directory itself, and when events were lost.
        assert!(watch.note(&event(EventKind::Any, &directory), &|| false));
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(watch.note(&lost, &|| false));
    }
}
