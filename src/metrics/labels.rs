//! Labels: closed lists of values, so that the number of series is known.

use crate::domain::TaskStatus;
use crate::hooks::{BroadcastProblem, DropReason, SseEnd, StoragePart, StorageProblem};

/// A value a label can have.
pub(super) trait Label: Copy + Send + Sync + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value, in the order of [`Label::position`].
    const ALL: &'static [Self];

    /// Returns the place of the value in the list.
    fn position(self) -> usize;

    /// Returns the value as it is exposed.
    fn value(self) -> &'static str;
}

macro_rules! label {
    ($label:ty, $name:literal) => {
        impl Label for $label {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &<$label>::ALL;

            fn position(self) -> usize {
                self as usize
            }

            fn value(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

/// Declares an enum that is a label.
macro_rules! values {
    ($(#[$about:meta])* $label:ident $name:literal { $($(#[$doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $label {
            $($(#[$doc])* $value,)*
        }

        impl $label {
            /// Every value.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$value),*];

            /// Returns the value as it is exposed.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }

        label!($label, $name);
    };
}

values! {
    /// What an append asked for.
    AppendKind "kind" {
        /// Events.
        Publish = "publish",
        /// Another state.
        Transition = "transition",
    }
}

values! {
    /// What an append came to.
    AppendOutcome "outcome" {
        /// It is durable.
        Accepted = "accepted",
        /// An earlier request with the same key had done it.
        Replayed = "replayed",
        /// The rules did not allow it.
        Refused = "refused",
        /// There is no such task.
        NoSuchTask = "no_such_task",
        /// Its key belongs to another request.
        KeyConflict = "key_conflict",
        /// Too many writes were waiting.
        Overloaded = "overloaded",
        /// The store was full.
        Full = "full",
        /// The store could not be reached.
        Unavailable = "unavailable",
        /// Whether it happened could not be found out.
        OutcomeUnknown = "outcome_unknown",
        /// The store failed in a way it should not.
        Failed = "failed",
    }
}

values! {
    /// What a batch of a lane was.
    BatchKind "lane" {
        /// Appends to tasks that no other instance writes to.
        Append = "append",
        /// Appends to contended tasks that claimed the next index of each.
        Claim = "claim",
        /// Appends to contended tasks behind a reservation of the next index.
        Reserve = "reserve",
        /// New tasks.
        Create = "create",
        /// Deletions.
        Delete = "delete",
    }
}

values! {
    /// What streams follow.
    StreamKind "stream" {
        /// One task.
        Task = "task",
        /// Every task.
        All = "all",
    }
}

values! {
    /// What was read for readers that the newest events do not suffice.
    CatchUpRead "read" {
        /// A page of a log.
        Page = "page",
        /// The list of a task's series.
        Series = "series",
        /// A series as one event.
        Snapshot = "snapshot",
    }
}

values! {
    /// Whether wakes from other instances can be counted on.
    ListenerState "state" {
        /// Proven to arrive.
        Healthy = "healthy",
        /// Not proven: the service polls.
        Deaf = "deaf",
        /// There is no other instance.
        Local = "local",
    }
}

values! {
    /// What an attempt at a webhook delivery came to.
    WebhookOutcome "outcome" {
        /// The receiver took it.
        Delivered = "delivered",
        /// It is tried again later.
        Retried = "retried",
        /// It is given up.
        Failed = "failed",
        /// Nobody is left to send it to.
        Cancelled = "cancelled",
    }
}

values! {
    /// What a round of cleanup came to.
    CleanupOutcome "outcome" {
        /// It was carried out, whatever it found.
        Done = "done",
        /// The store failed.
        Failed = "failed",
    }
}

values! {
    /// What a pooled connection is at.
    ConnectionState "state" {
        /// Somebody uses it.
        InUse = "in_use",
        /// Nobody does.
        Idle = "idle",
    }
}

label!(TaskStatus, "to");
label!(DropReason, "reason");
label!(SseEnd, "reason");
label!(StoragePart, "part");
label!(StorageProblem, "problem");
label!(BroadcastProblem, "problem");

#[cfg(test)]
mod tests {
    use super::*;

    fn check<L: Label>() {
        for (place, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.position(), place, "{} {}", L::NAME, label.value());
        }
    }

    #[test]
    fn every_value_stands_at_its_place() {
        check::<AppendOutcome>();
        check::<TaskStatus>();
        check::<DropReason>();
        check::<SseEnd>();
        check::<StoragePart>();
        check::<StorageProblem>();
        check::<BroadcastProblem>();
    }
}
