//! How long a stream may stay open for its caller.
//!
//! A stream ends when its credentials run out. Credentials that somebody else
//! judges are shown to them again from time to time; while nobody answers, the
//! stream goes on, but never past the time it was given.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::auth::AuthError;
use crate::domain::{Action, Guard, Principal};
use crate::http::auth::{Caller, Renewal};
use crate::http::fresh;

type Answer = Result<Arc<Principal>, AuthError>;

/// What is known of a lease.
#[derive(Debug)]
pub(super) enum Standing {
    /// It holds.
    Holds,
    /// It holds, if this still admits the caller.
    Renewed(Guard),
    /// It is over.
    Over,
}

/// The time a stream was given.
pub(super) struct Lease {
    action: Action,
    expires_at: Option<Instant>,
    renewing: Option<Renewing>,
}

struct Renewing {
    renewal: Arc<Renewal>,
    due: Instant,
    asking: Option<BoxFuture<'static, Answer>>,
    answer: Option<Answer>,
}

impl Lease {
    /// Makes the lease of a stream for which its caller needs `action`.
    pub(super) fn new(caller: &Caller, action: Action) -> Self {
        let renewing = caller.renewal().map(|renewal| Renewing {
            due: Instant::now() + renewal.every(),
            renewal,
            asking: None,
            answer: None,
        });
        Self { action, expires_at: expiry(caller.principal()), renewing }
    }

    /// Says how the lease stands; never waits.
    pub(super) fn standing(&mut self) -> Standing {
        let now = Instant::now();
        if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Standing::Over;
        }
        let answer = self.renewing.as_mut().and_then(|renewing| renewing.poll(now));
        match answer {
            None | Some(Err(AuthError::Unavailable(_))) => Standing::Holds,
            Some(Ok(principal)) => {
                self.expires_at = expiry(&principal);
                Standing::Renewed(Guard { principal, action: self.action })
            }
            Some(Err(_)) => Standing::Over,
        }
    }

    /// Waits until the standing may be another; dropping it loses nothing.
    pub(super) async fn changed(&mut self) {
        let (expires_at, renewing) = (self.expires_at, &mut self.renewing);
        let runs_out = async {
            match expires_at {
                Some(expires_at) => sleep_until(expires_at).await,
                None => std::future::pending().await,
            }
        };
        let renews = async {
            match renewing {
                Some(renewing) => renewing.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = runs_out => {}
            () = renews => {}
        }
    }
}

impl Renewing {
    /// Returns the answer to a question once it is there, and asks when it is time.
    fn poll(&mut self, now: Instant) -> Option<Answer> {
        if self.answer.is_none() {
            if self.asking.is_none() && self.due <= now {
                self.asking = Some(self.renewal.clone().ask().boxed());
            }
            self.answer = self.asking.as_mut().and_then(FutureExt::now_or_never);
        }
        let answer = self.answer.take()?;
        self.asking = None;
        self.due = now + self.renewal.every();
        Some(answer)
    }

    async fn changed(&mut self) {
        match &mut self.asking {
            Some(asking) if self.answer.is_none() => self.answer = Some(asking.await),
            Some(_) => {}
            None => sleep_until(self.due).await,
        }
    }
}

/// Returns the moment at which what is known of a caller stops to hold.
fn expiry(principal: &Principal) -> Option<Instant> {
    let left_ms = principal.expires_at_ms?.saturating_sub(fresh::now_ms());
    // A moment past what the clock can hold never comes.
    Instant::now().checked_add(Duration::from_millis(left_ms))
}
