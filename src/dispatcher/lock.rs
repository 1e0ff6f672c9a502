//! The lock around what readers and writers share.
//!
//! The program has the one of `parking_lot`. Unit tests explore interleavings: a lock
//! that is made within an exploration lets its scheduler run another task
//! whenever it is taken or released.

#[cfg(not(test))]
pub(super) use parking_lot::Mutex;

#[cfg(test)]
pub(super) use self::explored::Mutex;

#[cfg(test)]
mod explored {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::sync::atomic::Ordering;

    use shuttle::current::try_get_current_task;
    use shuttle::sync::atomic::AtomicBool;

    /// A lock that may be part of an exploration.
    #[derive(Debug)]
    pub(in crate::dispatcher) enum Mutex<T> {
        Plain(parking_lot::Mutex<T>),
        Explored(shuttle::sync::Mutex<T>),
    }

    /// What a lock guards, while it is held.
    pub(in crate::dispatcher) struct MutexGuard<'a, T>(Option<Held<'a, T>>);

    enum Held<'a, T> {
        Plain(parking_lot::MutexGuard<'a, T>),
        Explored(shuttle::sync::MutexGuard<'a, T>),
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            match try_get_current_task() {
                None => Self::Plain(parking_lot::Mutex::default()),
                Some(_) => Self::Explored(shuttle::sync::Mutex::default()),
            }
        }
    }

    impl<T> Mutex<T> {
        pub(in crate::dispatcher) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(match self {
                Self::Plain(lock) => Held::Plain(lock.lock()),
                Self::Explored(lock) => {
                    Held::Explored(lock.lock().unwrap_or_else(PoisonError::into_inner))
                }
            }))
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            let Some(Held::Explored(guard)) = self.0.take() else { return };
            drop(guard);
            // Others may come in before the release by itself. This lets them
            // come in after it as well, before whatever is done next.
            if !std::thread::panicking() {
                AtomicBool::default().load(Ordering::SeqCst);
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            match self.0.as_ref().expect("it is held until it is dropped") {
                Held::Plain(guard) => guard,
                Held::Explored(guard) => guard,
            }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            match self.0.as_mut().expect("it is held until it is dropped") {
                Held::Plain(guard) => guard,
                Held::Explored(guard) => guard,
            }
        }
    }
}
