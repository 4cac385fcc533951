//! What a compute takes, by the rules that Neon's documentation gives ("Postgres compatibility", "Connection pooling").

use std::fmt;

/// A compute's size: the two ends of autoscaling, which are one for a fixed size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Units {
    least: f64,
    most: f64,
}

impl Units {
    /// Parses `0.25`, `2`, `0.25-2`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let (least, most) = (unit(least)?, unit(most)?);
        match least <= most {
            true => Ok(Self { least, most }),
            false => Err(format!("expected the smaller end first: {most}-{least}")),
        }
    }

    /// Returns `max_connections`.
    ///
    /// For 9 CU Neon's table has 4000, and its formula this: the smaller one counts.
    pub(super) fn max_connections(self) -> u32 {
        let counted = self.most.min(8.0 * self.least);
        (counted * 419.66).floor().clamp(100.0, 4000.0) as u32
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least == self.most {
            true => write!(f, "{} CU", self.most),
            false => write!(f, "{} to {} CU", self.least, self.most),
        }
    }
}

fn unit(text: &str) -> Result<f64, String> {
    let expected = || "expected 0.25, 0.5 or 1 to 56, or two of them such as 0.25-2".to_owned();
    let unit: f64 = text.parse().map_err(|_| expected())?;
    let exists = [0.25, 0.5].contains(&unit) || (1.0..=56.0).contains(&unit) && unit.fract() == 0.0;
    exists.then_some(unit).ok_or_else(expected)
}

/// How many connections Neon keeps for itself.
pub(super) const RESERVED: u32 = 7;

/// `max_client_conn` of Neon's PgBouncer.
pub(super) const POOLER_CLIENTS: u32 = 10_000;

/// Returns how many transactions Neon's PgBouncer runs at a time for one role in one database: its
/// `default_pool_size`, 0.9 × `max_connections`.
pub(super) fn server_connections(max_connections: u32) -> u32 {
    let most = u64::from(max_connections) * 9 / 10;
    u32::try_from(most).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_neons_tables() {
        for (units, connections, pooled) in [
            ("0.25", 104, 93),
            ("0.5", 209, 188),
            ("1", 419, 377),
            ("2", 839, 755),
            ("3", 1258, 1132),
            ("4", 1678, 1510),
            ("5", 2098, 1888),
            ("6", 2517, 2265),
            ("7", 2937, 2643),
            ("8", 3357, 3021),
            ("10", 4000, 3600),
            ("56", 4000, 3600),
            ("0.25-2", 839, 755),
            ("0.25-4", 839, 755),
            ("2-8", 3357, 3021),
        ] {
            let found = Units::parse(units).unwrap().max_connections();
            assert_eq!(
                (found, server_connections(found)),
                (connections, pooled),
                "{units}"
            );
        }
    }

    #[test]
    fn sizes_that_neon_does_not_have_are_refused() {
        for wrong in [
            "", "0", "0.3", "1.5", "57", "-1", "NaN", "inf", "1-", "-", "1-2-3", "2 CU",
        ] {
            let parsed = Units::parse(wrong);
            assert!(parsed.is_err(), "{wrong}: {parsed:?}");
        }
        let reversed = Units::parse("2-0.25").unwrap_err();
        assert_eq!(reversed, "expected the smaller end first: 0.25-2");
        assert_eq!(Units::parse("0.25-2").unwrap().to_string(), "0.25 to 2 CU");
        assert_eq!(Units::parse("0.5").unwrap().to_string(), "0.5 CU");
    }
}
