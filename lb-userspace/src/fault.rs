//! [`here`]: places where tests let the agent die in the middle of what it does.
//!
//! `LB_FAULT=<point>` kills the process, as SIGKILL does, when it comes to that [`Point`]; `LB_FAULT=<point>:<n>` when it
//! comes there for the n-th time. Only builds with debug assertions look at it: of a release nothing of this is left.
//! The places are between writes that the kernel keeps: what lies between two points is done or not done.

/// A place in the agent, in the order in which one start and one synchronisation come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Locks are held, nothing else has happened.
    StartLocked,
    /// The admin socket and the metrics port are taken.
    StartListening,
    /// Directories for the pins are there.
    LoadPrepared,
    /// A map of another layout's version has been taken over.
    MigrateMap,
    /// Every map that can be taken over has been.
    MigrateMaps,
    /// All maps are pinned.
    LoadMaps,
    /// A program is pinned beside the one that it replaces.
    LoadProgram,
    /// All programs are pinned.
    LoadPrograms,
    /// A jump leads to its new program.
    LoadJump,
    /// All is loaded, nothing attached.
    StartLoaded,
    /// Readers are served, nothing is synchronised.
    StartServing,
    /// A synchronisation begins.
    SyncBegun,
    /// Settings are written.
    SyncSettings,
    /// Rows of interfaces are written.
    SyncInterfaces,
    /// A link of another version is pinned among this one's, and carries its old program still.
    MigrateLink,
    /// A link carries its new program.
    AttachAdopted,
    /// A program is attached by a link that is not pinned yet.
    AttachUnpinned,
    /// A new link is pinned.
    AttachPinned,
    /// A link that is not wanted any more is gone.
    AttachDetached,
    /// A filter carries its new program, where the kernel has no tcx links.
    AttachFilter,
    /// All links are ours; pins of another version are still there.
    MigrateLinks,
    /// Some of the pins of another version are removed.
    MigrateRemoving,
    /// What is attached is as it should be.
    SyncAttached,
    /// A plan is made, nothing of it written.
    SyncPlanned,
    /// Before a write of a plan's phase `Make`.
    ApplyMake,
    /// Before a write of its phase `Flip`.
    ApplyFlip,
    /// Before a write of its phase `Expose`.
    ApplyExpose,
    /// Before a write of its phase `Close`.
    ApplyClose,
    /// Programs that may have read what goes have ended.
    ApplySettled,
    /// Before a write of its phase `Break`.
    ApplyBreak,
    /// The plan is written.
    SyncApplied,
    /// Names and readers follow.
    SyncForced,
    /// The agent is about to say that it is ready.
    StartReady,
    /// It was told to stop.
    StopBegun,
    /// It has stopped serving.
    StopEnded,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::StartLocked,
        Self::StartListening,
        Self::LoadPrepared,
        Self::MigrateMap,
        Self::MigrateMaps,
        Self::LoadMaps,
        Self::LoadProgram,
        Self::LoadPrograms,
        Self::LoadJump,
        Self::StartLoaded,
        Self::StartServing,
        Self::SyncBegun,
        Self::SyncSettings,
        Self::SyncInterfaces,
        Self::MigrateLink,
        Self::AttachAdopted,
        Self::AttachUnpinned,
        Self::AttachPinned,
        Self::AttachDetached,
        Self::AttachFilter,
        Self::MigrateLinks,
        Self::MigrateRemoving,
        Self::SyncAttached,
        Self::SyncPlanned,
        Self::ApplyMake,
        Self::ApplyFlip,
        Self::ApplyExpose,
        Self::ApplyClose,
        Self::ApplySettled,
        Self::ApplyBreak,
        Self::SyncApplied,
        Self::SyncForced,
        Self::StartReady,
        Self::StopBegun,
        Self::StopEnded,
    ];

    /// As `LB_FAULT` has it: `sync-begun`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// Whether an agent that attaches to tc alone comes by, on a kernel with tcx links or without.
    pub fn is_met(self, tcx: bool) -> bool {
        match self {
            Self::MigrateLink
            | Self::AttachAdopted
            | Self::AttachUnpinned
            | Self::AttachPinned
            | Self::AttachDetached => tcx,
            Self::AttachFilter => !tcx,
            _ => true,
        }
    }

    /// Whether only a change of the tables' layout comes by.
    pub fn is_of_migration(self) -> bool {
        self.name().starts_with("migrate")
    }
}

/// Dies here if `LB_FAULT` says so. Nothing in a release.
#[inline]
pub fn here(point: Point) {
    #[cfg(debug_assertions)]
    armed::pass(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Point;

    /// Where to die, and at which coming there.
    static FAULT: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
        let text = std::env::var("LB_FAULT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), count.parse().unwrap_or(1)))
    });
    static COMINGS: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn pass(point: Point) {
        let Some((name, count)) = FAULT.as_ref() else { return };
        if point.name() == *name && COMINGS.fetch_add(1, Ordering::Relaxed) + 1 == *count {
            eprintln!("LB_FAULT: dies at {name}, coming there for the {count}. time");
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_all_are_listed_once() {
        assert_eq!(Point::StartLocked.name(), "start-locked");
        // The last one's number: none is missing, each is where its number says.
        for (index, point) in Point::ALL.into_iter().enumerate() {
            assert_eq!(point as usize, index, "{point:?}");
        }
        assert_eq!(Point::StopEnded as usize + 1, Point::ALL.len());
    }
}
