//! Which version of the Engine API is spoken.

use crate::provider::docker::api::node::EngineVersion;

/// The oldest API with all that is needed: of the engine 20.10.
const OLDEST: (u32, u32) = (1, 41);
/// The API that is spoken if the engine speaks it: its answers are known, and stay the same in newer engines.
const KNOWN: (u32, u32) = (1, 44);

/// The version that both speak, as the beginning of a path: [`KNOWN`], or what is nearest to it.
///
/// # Errors
/// There is none: what the operator is told.
pub(super) fn choose(engine: &EngineVersion) -> Result<String, String> {
    let Some(newest) = parse(&engine.newest) else {
        return Err(format!(
            "the engine does not say which API it speaks (version {:?}, API {:?}); is provider.socket that of dockerd?",
            engine.version, engine.newest
        ));
    };
    if newest < OLDEST {
        return Err(format!(
            "the engine {} speaks API {} at most; {}.{} is needed, which is Docker 20.10 or newer",
            engine.version, engine.newest, OLDEST.0, OLDEST.1
        ));
    }
    let oldest = parse(&engine.oldest).unwrap_or(OLDEST);
    let (major, minor) = KNOWN.min(newest).max(oldest.min(newest));
    Ok(format!("/v{major}.{minor}"))
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(oldest: &str, newest: &str) -> EngineVersion {
        EngineVersion {
            version: "x".into(),
            newest: newest.into(),
            oldest: oldest.into(),
        }
    }

    #[test]
    fn the_version_that_both_speak() {
        for (oldest, newest, chosen) in [
            ("1.12", "1.41", "/v1.41"), // 20.10
            ("1.24", "1.44", "/v1.44"), // 25.0
            ("1.44", "1.52", "/v1.44"), // 29.0
            ("1.50", "1.60", "/v1.50"),
            ("", "1.47", "/v1.44"),
        ] {
            assert_eq!(choose(&engine(oldest, newest)).as_deref(), Ok(chosen));
        }
    }

    #[test]
    fn what_is_too_old_or_no_engine_is_said() {
        let error = choose(&engine("1.12", "1.40")).unwrap_err();
        assert!(error.contains("Docker 20.10 or newer"), "{error}");
        let error = choose(&engine("", "")).unwrap_err();
        assert!(error.contains("is provider.socket that of dockerd?"), "{error}");
    }
}
