//! Wakes between instances, over NOTIFY.
//!
//! A NOTIFY in the append's transaction would make all appends of the cluster
//! flush one after the other. So it is sent on its own, after the commit,
//! coalesced: at once when idle, every few milliseconds under load, at once
//! again for a task that ended.
//!
//! # The listener
//!
//! States: deaf, until its own ping came back; healthy, while pings come back.
//! LISTEN is in force before anything is read again, and a rescan is asked for
//! before it calls itself healthy, so nothing falls between. Any error and any
//! silence makes it deaf and is answered by a new connection; a listener that
//! met an error is never used again. While it is deaf, readers poll faster.

use std::fmt::Write as _;
use std::io;
use std::io::ErrorKind::{ConnectionAborted, TimedOut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::primary::{Need, Primary};
use super::super::session::{Route, Session};
use super::super::settings::Settings;
use super::buffer::WakeBuffer;
use crate::domain::TaskNumber;
use crate::store::report::Reporter;
use crate::store::{Bus, BusHealth, BusProblem, Moved, Report, Wake};

/// The channel all instances share.
const CHANNEL: &str = "taskcast";

/// Longest payload; Postgres refuses 8,000 bytes.
const MAX_PAYLOAD: usize = 7_500;

/// Shortest time between two notifications that are not urgent.
const WINDOW: Duration = Duration::from_millis(4);

/// How often the listener pings itself, and how long a ping may take.
const PING_EVERY: Duration = Duration::from_secs(3);

/// How long Postgres may take to answer the notifier and to let the listener listen.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before a lost listener connects again; doubles up to 32 times.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// The bus of instances that share one database.
#[derive(Debug)]
pub(in super::super) struct PostgresBus {
    /// Tells our own notifications from those of others.
    instance: String,
    outgoing: WakeBuffer,
    incoming: WakeBuffer,
    healthy: AtomicBool,
    restarts: AtomicU64,
    ping_sent: AtomicU64,
    ping_heard: AtomicU64,
    reporter: Reporter,
    primary: Arc<Primary>,
}

impl PostgresBus {
    pub(in super::super) fn new(reporter: Reporter, primary: Arc<Primary>) -> Arc<Self> {
        Arc::new(Self {
            instance: format!("{:016x}", rand::random::<u64>()),
            outgoing: WakeBuffer::default(),
            incoming: WakeBuffer::default(),
            healthy: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            ping_sent: AtomicU64::new(0),
            ping_heard: AtomicU64::new(0),
            reporter,
            primary,
        })
    }

    /// Asks for a look at everything, here: wakes may have been missed.
    pub(in super::super) fn rescan(&self) {
        self.incoming.push_rescan();
    }

    /// Sends what is announced, for ever.
    pub(in super::super) async fn notify_loop(
        self: Arc<Self>,
        options: PgConnectOptions,
        route: Route,
    ) {
        let mut connection: Option<Session> = None;
        let mut last_sent = Instant::now();
        let mut last_ping = 0;
        let mut is_failing = false;
        loop {
            self.outgoing.arrived().await;
            while !self.outgoing.is_urgent() && last_sent.elapsed() < WINDOW {
                tokio::select! {
                    () = sleep_until(last_sent + WINDOW) => {}
                    () = self.outgoing.arrived() => {}
                }
            }
            let wake = self.outgoing.take();
            let tasks = wake.as_ref().map_or(0, count);
            let mut payloads = self.payloads(wake);
            let ping = self.ping_sent.load(Ordering::Acquire);
            if ping != last_ping {
                payloads.push(format!("{} ping {ping}", self.instance));
                last_ping = ping;
            }
            if payloads.is_empty() {
                continue;
            }
            match self.send(&mut connection, &options, route, &payloads).await {
                Ok(()) => {
                    is_failing = false;
                    self.reporter.report(&Report::WakesSent(tasks));
                }
                Err(error) => {
                    // Lost, as a hint may be; the poll behind it is not.
                    connection = None;
                    if !std::mem::replace(&mut is_failing, true) {
                        self.failed(BusProblem::NotSending, &error);
                    }
                }
            }
            last_sent = Instant::now();
        }
    }

    /// Sends payloads, over a new connection if there is none that is current.
    async fn send(
        &self,
        connection: &mut Option<Session>,
        options: &PgConnectOptions,
        route: Route,
        payloads: &[String],
    ) -> Result<(), sqlx::Error> {
        let open = if let Some(open) = connection.take().filter(Session::is_current) {
            open
        } else {
            let (settings, primary) = (Settings::Read, &self.primary);
            Session::connect(options, route, settings, TIMEOUT, primary, Need::Reads).await?
        };
        let open = connection.insert(open);
        sqlx::query_file!("sql/bus/notify.sql", payloads).fetch_all(open).await?;
        Ok(())
    }

    fn failed(&self, problem: BusProblem, error: &sqlx::Error) {
        self.reporter.report(&Report::BusFailed(problem, &error.to_string()));
    }

    fn payloads(&self, wake: Option<Wake>) -> Vec<String> {
        let moved = match wake {
            None => return Vec::new(),
            Some(Wake::Rescan) => return vec![format!("{} rescan", self.instance)],
            Some(Wake::Moved(moved)) => moved,
        };
        let mut payloads = Vec::new();
        let mut payload = self.instance.clone();
        for wake in moved {
            if payload.len() + 48 > MAX_PAYLOAD {
                payloads.push(std::mem::replace(&mut payload, self.instance.clone()));
            }
            let mark = if wake.urgent { "!" } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(payload, " {}:{}{mark}", wake.number.get(), wake.next_index);
        }
        payloads.push(payload);
        payloads
    }

    /// Listens, for ever: every loss is followed by a new listener.
    pub(in super::super) async fn listen_loop(self: Arc<Self>, options: PgConnectOptions) {
        let mut pause = RECONNECT_PAUSE;
        let mut was_told = false;
        loop {
            let error = match self.listen_once(&options).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if self.healthy.swap(false, Ordering::AcqRel) {
                pause = RECONNECT_PAUSE;
                self.restarts.fetch_add(1, Ordering::AcqRel);
                tracing::warn!(%error, "listener lost");
                self.failed(BusProblem::ListenerLost, &error);
                was_told = true;
            } else {
                tracing::debug!(%error, "listener not established");
                if !std::mem::replace(&mut was_told, true) {
                    self.failed(BusProblem::NotListening, &error);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_PAUSE * 32);
        }
    }

    async fn listen_once(
        &self,
        options: &PgConnectOptions,
    ) -> Result<std::convert::Infallible, sqlx::Error> {
        // A pool of its own: the listener keeps its connection for life.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
        let listening = timeout(TIMEOUT, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            let (route, settings) = (Route::Direct, Settings::Listener);
            self.primary.admit(&mut listener, route, settings, Need::Reads).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        });
        let mut listener =
            listening.await.unwrap_or_else(|_| Err(sqlx::Error::Io(TimedOut.into())))?;
        // From here on nothing is missed; before, anything may have been.
        self.incoming.push_rescan();
        let outcome = tokio::select! {
            outcome = self.receive(&mut listener) => outcome,
            outcome = self.keep_pinging() => outcome,
            () = self.primary.renewed() => Err(io::Error::other("another server").into()),
        };
        // Not waited for: the listener holds its connection until it is dropped,
        // and a connection that died without a word is never given back.
        drop(pool.close());
        outcome
    }

    async fn receive(
        &self,
        listener: &mut PgListener,
    ) -> Result<std::convert::Infallible, sqlx::Error> {
        while let Some(notification) = listener.try_recv().await? {
            self.hear(notification.payload());
        }
        Err(sqlx::Error::Io(ConnectionAborted.into()))
    }

    fn hear(&self, payload: &str) {
        let mut words = payload.split(' ');
        let is_ours = words.next() == Some(&self.instance);
        match (is_ours, words.clone().next()) {
            (true, Some("ping")) => {
                let ping = words.nth(1).and_then(|count| count.parse().ok());
                self.ping_heard.fetch_max(ping.unwrap_or(0), Ordering::AcqRel);
                self.healthy.store(true, Ordering::Release);
            }
            (true, _) | (false, Some("ping")) => {}
            (false, Some("rescan")) => self.incoming.push_rescan(),
            (false, _) => {
                let moved: Vec<Moved> = words.filter_map(parse_moved).collect();
                self.reporter.report(&Report::WakesReceived(moved.len()));
                self.incoming.push(moved);
            }
        }
    }

    /// Pings the listener through the notifier; ends when a ping is lost.
    async fn keep_pinging(&self) -> Result<std::convert::Infallible, sqlx::Error> {
        loop {
            let ping = self.ping_sent.fetch_add(1, Ordering::AcqRel) + 1;
            self.outgoing.push([]);
            sleep(PING_EVERY).await;
            if self.ping_heard.load(Ordering::Acquire) < ping {
                return Err(sqlx::Error::Io(TimedOut.into()));
            }
        }
    }
}

fn count(wake: &Wake) -> usize {
    match wake {
        Wake::Moved(moved) => moved.len(),
        Wake::Rescan => 0,
    }
}

fn parse_moved(word: &str) -> Option<Moved> {
    let (number, index) = word.split_once(':')?;
    let urgent = index.ends_with('!');
    Some(Moved {
        number: TaskNumber::new(number.parse().ok()?)?,
        next_index: index.trim_end_matches('!').parse().ok()?,
        urgent,
    })
}

#[async_trait]
impl Bus for PostgresBus {
    fn announce(&self, moved: &[Moved]) {
        self.outgoing.push(moved.iter().copied());
    }

    async fn next(&self) -> Wake {
        self.incoming.next().await
    }

    fn health(&self) -> BusHealth {
        if self.healthy.load(Ordering::Acquire) { BusHealth::Healthy } else { BusHealth::Deaf }
    }

    fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Arc<PostgresBus> {
        PostgresBus::new(Reporter::default(), Arc::default())
    }

    fn moved(number: u64, next_index: u64, urgent: bool) -> Moved {
        Moved { number: TaskNumber::new(number).unwrap(), next_index, urgent }
    }

    #[tokio::test]
    async fn what_one_instance_says_another_hears_once_per_task() {
        let (speaker, hearer) = (bus(), bus());
        speaker.announce(&[moved(7, 3, false), moved(7, 5, true), moved(8, 1, false)]);
        for payload in speaker.payloads(speaker.outgoing.take()) {
            speaker.hear(&payload);
            hearer.hear(&payload);
        }
        assert_eq!(speaker.incoming.take(), None);
        let Wake::Moved(mut heard) = hearer.next().await else { panic!("a rescan") };
        heard.sort_by_key(|moved| moved.number);
        assert_eq!(heard, [moved(7, 5, true), moved(8, 1, false)]);
    }

    #[test]
    fn long_lists_are_split_below_the_payload_limit() {
        let speaker = bus();
        let many: Vec<Moved> = (0..2_000).map(|n| moved(n, u64::from(u32::MAX), false)).collect();
        speaker.announce(&many);
        let payloads = speaker.payloads(speaker.outgoing.take());
        assert!(payloads.len() > 1);
        assert!(payloads.iter().all(|payload| payload.len() < 8_000));
        let words: usize = payloads.iter().map(|payload| payload.split(' ').count() - 1).sum();
        assert_eq!(words, 2_000);
    }

    #[test]
    fn a_ping_of_our_own_proves_the_listener_and_a_strangers_does_not() {
        let bus = bus();
        bus.hear("0123456789abcdef ping 4");
        assert_eq!(bus.health(), BusHealth::Deaf);
        bus.hear(&format!("{} ping 1", bus.instance));
        assert_eq!(bus.health(), BusHealth::Healthy);
    }
}
