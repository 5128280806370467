//! Keeps packages from starting their services while they are installed: the tests start what they need themselves.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What Debian's packages ask before they start anything (Debian policy, chapter 9.3.3).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// 101: not allowed.
const REFUSAL: &str = "#!/bin/sh\nexit 101\n";

/// While it lives, no package starts a service. A machine that has a policy of its own keeps that.
#[derive(Debug)]
#[must_use = "dropping it lets services start"]
pub(crate) struct NoServices(Option<PathBuf>);

impl NoServices {
    /// # Errors
    /// The policy cannot be written.
    pub(crate) fn new() -> Result<Self> {
        Self::at(Path::new(POLICY))
    }

    fn at(path: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
        match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Self(None)),
            opened => drop(opened.with_context(|| path.display().to_string())?),
        }
        let created = Self(Some(path.to_owned()));
        fs::write(path, REFUSAL)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        Ok(created)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_made_and_goes_and_one_that_was_there_stays() {
        let directory = std::env::temp_dir().join(format!("xtask-services-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("policy-rc.d");
        let outer = NoServices::at(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), REFUSAL);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        drop(NoServices::at(&path).unwrap());
        assert!(path.exists());
        drop(outer);
        assert!(!path.exists());
        fs::remove_dir(&directory).unwrap();
    }
}
