//! An archive that the kernel unpacks as its first file system: cpio in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// Grows file by file; [`Archive::finish`] ends it.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// `S_IFDIR` and `S_IFREG` of `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// Name of the entry that ends an archive.
const END: &str = "TRAILER!!!";

impl Archive {
    /// A directory; those above it come first.
    pub(super) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, &[]);
    }

    /// A file that everybody may read and execute.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content);
    }

    /// The bytes of the whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, &[]);
        self.bytes
    }

    /// Header of thirteen numbers of eight hexadecimal digits, name, content; name and content end on four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = |length: usize| u32::try_from(length).expect("a file for a small machine");
        let (owner, group, links, time, device) = (0, 0, 1, 0, 0);
        let fields = [
            self.entries,
            mode,
            owner,
            group,
            links,
            time,
            size(content.len()),
            device,
            device,
            device,
            device,
            size(name.len() + 1),
            0, // checksum, which this format does not have
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/a", b"12345");
        let bytes = archive.finish();
        let directory = "070701\
            00000001000041ed00000000000000000000000100000000\
            0000000000000000000000000000000000000000\
            0000000400000000bin\0\0\0";
        let file = "070701\
            00000002000081ed00000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000600000000bin/a\0\
            12345\0\0\0";
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with(&format!("{directory}{file}070701")), "{text:?}");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
        assert_eq!(text.len() % 4, 0);
    }
}
