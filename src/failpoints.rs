//! Switches that break one promise each, on purpose.
//!
//! A test of faults is worth something only if it fails on a service that is
//! broken. So the real code can be broken here and there, and the tests in
//! `tests/it/controls` check that the fault suite notices. The switches exist
//! only with the cargo feature `failpoints`: without it, `failpoint!` leaves
//! nothing behind to compile, and with it a release does not build.
//!
//! A switch is named in the variable `FAILPOINTS` of the program's
//! environment, with `return` or, where it shall widen a window, with
//! `return(MILLISECONDS)`; several are separated by semicolons.
//!
//! | switch | what it breaks |
//! | --- | --- |
//! | `reply-before-commit` | Callers are answered before their batch is sent. |
//! | `show-before-commit` | Readers get events before their batch is sent. |
//! | `unsorted-inserts` | The logs of a batch are written to in random order. |
//! | `remove-at-once` | Superseded events are removed without waiting for statements under way. |
//! | `receipt-after-log` | A batch that is sent again meets its own events before its receipt. |
//! | `stale-series` | After a conflict the position of a series is kept. |
//! | `no-re-read` | Neither a lost listener nor the poll makes anybody look again. |
//! | `read-before-register` | A reader's topic is registered after its head was read. |

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!(
    "the feature `failpoints` breaks promises on purpose; it is for builds with debug assertions"
);

/// Runs a block that breaks something, when the switch for it is on.
///
/// The block gets how long the window that it opens shall be held open.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($switch:literal, |$pause:pat_param| $broken:expr) => {
        if let Some($pause) = crate::failpoints::pause_at($switch) {
            $broken;
        }
    };
}

/// Stands where the feature `failpoints` can break something; now it cannot.
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($switch:literal, |$pause:pat_param| $broken:expr) => {};
}

#[cfg(feature = "failpoints")]
pub use switches::Switches;
#[cfg(feature = "failpoints")]
pub(crate) use switches::pause_at;

#[cfg(feature = "failpoints")]
mod switches {
    use std::fmt;
    use std::time::Duration;

    /// The switches that the environment of this process turned on.
    pub struct Switches(fail::FailScenario<'static>);

    impl fmt::Debug for Switches {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_list().entries(fail::list()).finish()
        }
    }

    impl Switches {
        /// Reads the variable `FAILPOINTS`; the switches stay as long as this does.
        pub fn from_environment() -> Self {
            Self(fail::FailScenario::setup())
        }

        /// Turns all switches off.
        pub fn off(self) {
            self.0.teardown();
        }
    }

    /// Returns how long to pause at a switch that is on.
    pub(crate) fn pause_at(switch: &str) -> Option<Duration> {
        fail::fail_point!(switch, |pause: Option<String>| {
            let pause = pause.and_then(|pause| pause.parse().ok());
            Some(Duration::from_millis(pause.unwrap_or(0)))
        });
        None
    }
}
