//! Cuts a document at its `[[node]]`, `[[network]]` and `[[service]]`. Pure.
//!
//! Each piece is a document of its own, and together they mean what the whole means. That holds for documents as people
//! and programs write them; what is written in another way (inline tables, strings of several lines) is not cut.

use std::ops::Range;

/// What a piece describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Network,
    Service,
}

/// The pieces of `text`, one behind the other to its end; before the first there are only comments. `None`: it cannot be
/// cut.
pub(super) fn cut(text: &str) -> Option<Vec<(Kind, Range<usize>)>> {
    // Inside of such a string a line may look like a header.
    if text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let mut pieces: Vec<(Kind, Range<usize>)> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.trim_ascii();
        if line.starts_with('[') {
            let header = line.split('#').next().unwrap_or_default().trim_ascii_end();
            let kind = match header {
                "[[node]]" => Kind::Node,
                "[[network]]" => Kind::Network,
                "[[service]]" => Kind::Service,
                "[[service.backend]]" | "[[service.ports]]" if matches!(pieces.last(), Some((Kind::Service, _))) => {
                    continue;
                }
                _ => return None,
            };
            if let Some((_, piece)) = pieces.last_mut() {
                piece.end = start;
            }
            pieces.push((kind, start..text.len()));
        } else if pieces.is_empty() && !line.is_empty() && !line.starts_with('#') {
            return None;
        }
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Option<Vec<(Kind, &str)>> {
        Some(
            cut(text)?
                .into_iter()
                .map(|(kind, range)| (kind, &text[range]))
                .collect(),
        )
    }

    #[test]
    fn at_every_header() {
        let text = "# a\n\n[[node]]\nname = \"n\"\n [[service]] # b\nname = \"s\"\n[[service.backend]]\n[[service]]\n";
        let expected = [
            (Kind::Node, "[[node]]\nname = \"n\"\n"),
            (Kind::Service, " [[service]] # b\nname = \"s\"\n[[service.backend]]\n"),
            (Kind::Service, "[[service]]\n"),
        ];
        assert_eq!(pieces(text).unwrap(), expected);
        assert_eq!(pieces("").unwrap(), []);
        assert_eq!(pieces("# nothing").unwrap(), []);
    }

    #[test]
    fn not_what_is_written_in_another_way() {
        for text in [
            "service = []",
            "[node]",
            "[[service.backend]]",
            "[[node]]\n[[service.backend]]",
            "[[service]]\nname = \"\"\"\n[[node]]\n\"\"\"",
            "[[service]]\nname = '''\n[[node]]\n'''",
            "[[ service ]]",
            "[[service]]\nvip = [\n[\"10.0.0.1\"]\n]",
            "[[service]]\n[service.x]",
            "\u{feff}[[service]]",
        ] {
            assert_eq!(pieces(text), None, "{text:?}");
        }
    }
}
