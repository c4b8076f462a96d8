//! Sizes in bytes as users write and read them: `20GB`, `2.61MB`. Units are powers of 1024.

/// Names of the units, each with its power of two.
const UNITS: [(&str, u32); 5] = [("B", 0), ("KB", 10), ("MB", 20), ("GB", 30), ("TB", 40)];

/// Formats `bytes` with two decimals, as `2.61MB`.
#[must_use]
#[allow(clippy::cast_precision_loss)] // two decimals are shown
pub fn format(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = UNITS.iter().map(|(name, _)| name).peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        if size <= 1024.0 || units.peek().is_none() {
            break;
        }
        size /= 1024.0;
    }
    format!("{size:.2}{unit}")
}

/// Parses a whole number of up to nine digits and a unit, as `20GB`. Saturates at the largest `u64`.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    let number = Some(number).filter(|digits| digits.len() <= 9)?.parse::<u64>().ok()?;
    Some(number.saturating_mul(1 << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        for (bytes, shown) in [
            (0, "0.00B"),
            (1024, "1024.00B"),
            (1025, "1.00KB"),
            (2_736_784, "2.61MB"),
            (5_000_000_000, "4.66GB"),
            (u64::MAX, "16777216.00TB"),
        ] {
            assert_eq!(format(bytes), shown);
        }
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, bytes) in [
            ("0B", Some(0)),
            ("20GB", Some(20 << 30)),
            ("20 GB", Some(20 << 30)),
            ("999999999TB", Some(u64::MAX)),
            ("9999999999B", None),
            ("20", None),
            ("GB", None),
            ("-1GB", None),
            ("2.5GB", None),
            ("20gb", None),
        ] {
            assert_eq!(parse(text), bytes, "{text}");
        }
    }
}
