//! The secret file: who may read it, what it holds, and what is made of it.

use std::os::unix::fs::PermissionsExt;

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
    file
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computed by other means: HMAC-SHA256 twice (RFC 5869), and `openssl pkey` for the public key.
#[test]
fn the_derivation_is_fixed() {
    let seed = seed(SECRET);
    assert_eq!(
        hex(&seed),
        "b0395343cbc9b5bae7902e00f7e0d3427fa3a40ee030a302fadb76a777302cec"
    );
    assert_eq!(
        hex(&public_key(&seed)),
        "302a300506032b657003210071f131b2448295eb05178cbb9a3c677678a9c09c63d9a389039622629011de54"
    );
}

#[test]
fn white_space_around_a_secret_is_no_part_of_it() {
    let plain = keys(SECRET).unwrap();
    let padded = keys(b"\n  0123456789abcdef0123456789abcdef \r\n\n").unwrap();
    assert_eq!((plain.own, plain.accepted), (padded.own, padded.accepted));
}

#[test]
fn the_first_secret_is_the_own_one_and_all_are_accepted() {
    let other = b"fedcba9876543210fedcba9876543210";
    let both = keys(&[SECRET, b"\n", other].concat()).unwrap();
    assert_eq!(both.own, keys(SECRET).unwrap().own);
    assert_eq!(
        both.accepted,
        [&keys(SECRET).unwrap().accepted[..], &keys(other).unwrap().accepted[..]].concat()
    );
}

#[test]
fn poor_secrets_are_refused() {
    for (text, problem) in [
        (&b""[..], "it is empty"),
        (b" \n\n", "it is empty"),
        (b"\n0123456789", "the secret on line 2 has 10 bytes, and needs 32"),
        (
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "the secret on line 1 can be guessed",
        ),
    ] {
        assert_eq!(keys(text).unwrap_err(), problem);
    }
    let mut second = SECRET.to_vec();
    second.extend(b"\nshort");
    assert_eq!(
        keys(&second).unwrap_err(),
        "the secret on line 2 has 5 bytes, and needs 32"
    );
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o644, 0o620, 0o602, 0o777] {
        let file = file(SECRET, mode);
        let error = read(file.path()).unwrap_err().to_string();
        assert!(
            error.contains("can be read by others") && error.contains("chmod 600"),
            "{mode:o}: {error}"
        );
    }
    for mode in [0o600, 0o400] {
        assert!(read(file(SECRET, mode).path()).is_ok(), "{mode:o}");
    }
}

#[test]
fn what_is_no_secret_file_is_named() {
    let error = read(Path::new("/nonexistent/secret")).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the secret file /nonexistent/secret: No such file"),
        "{error}"
    );
    let directory = tempfile::tempdir().unwrap();
    let error = read(directory.path()).unwrap_err().to_string();
    assert!(error.ends_with("not a regular file"), "{error}");
    let error = read(file(&vec![b'a'; 1 << 17], 0o600).path()).unwrap_err().to_string();
    assert!(error.contains("larger than 64 KiB"), "{error}");
}
