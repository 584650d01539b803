//! A log line for the first time something happens, then at each doubling.
//!
//! In: one call an occurrence. Out: the count when a line is due. Never: no clock, no I/O.

/// Counts occurrences and says when one deserves a log line: at 1, 2, 4, 8, ... so that a flood writes few lines and
/// none of it is hidden.
#[derive(Debug, Clone, Default)]
pub struct Rarely {
    count: u64,
    logged: u64,
}

impl Rarely {
    /// Counts `more` occurrences; the total so far when a line is due.
    pub fn happened(&mut self, more: u64) -> Option<u64> {
        self.count = self.count.saturating_add(more);
        let due = more > 0 && self.count >= self.logged.saturating_mul(2).max(1);
        if due {
            self.logged = self.count;
        }
        due.then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_times_is_ten_lines() {
        let mut rarely = Rarely::default();
        let lines: Vec<u64> = (0..1000).filter_map(|_| rarely.happened(1)).collect();
        assert_eq!(lines, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(rarely.happened(0), None);
        assert_eq!(rarely.happened(5000), Some(6000));
    }
}
