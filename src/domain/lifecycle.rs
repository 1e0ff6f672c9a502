//! The states of a task and the one table of legal transitions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state a task is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Created, not started.
    Pending,
    /// Being worked on.
    Running,
    /// Finished with success.
    Completed,
    /// Finished with an error.
    Failed,
    /// Its deadline passed before it finished.
    Timeout,
    /// Called off.
    Cancelled,
}

impl TaskStatus {
    /// Every state, in the order of a task's life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// Returns the states a task in this state may move to.
    pub const fn successors(self) -> &'static [Self] {
        match self {
            Self::Pending => &[Self::Running, Self::Cancelled, Self::Timeout],
            Self::Running => &[Self::Completed, Self::Failed, Self::Timeout, Self::Cancelled],
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled => &[],
        }
    }

    /// Tells whether a task in this state may move to `to`.
    pub fn may_become(self, to: Self) -> bool {
        self.successors().contains(&to)
    }

    /// Tells whether this state is final: nothing follows it.
    pub const fn is_terminal(self) -> bool {
        self.successors().is_empty()
    }

    /// Returns the state's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Parses a state's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskStatus::{self, Cancelled, Completed, Failed, Pending, Running, Timeout};

    #[test]
    fn exactly_the_documented_transitions_are_legal() {
        let legal = [
            (Pending, Running),
            (Pending, Cancelled),
            (Pending, Timeout),
            (Running, Completed),
            (Running, Failed),
            (Running, Timeout),
            (Running, Cancelled),
        ];
        for from in TaskStatus::ALL {
            for to in TaskStatus::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from} to {to}");
            }
        }
    }

    #[test]
    fn the_last_four_states_are_terminal_and_names_round_trip() {
        for status in TaskStatus::ALL {
            let terminal = matches!(status, Completed | Failed | Timeout | Cancelled);
            assert_eq!(status.is_terminal(), terminal);
            assert_eq!(TaskStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(TaskStatus::parse("Running"), None);
    }
}
