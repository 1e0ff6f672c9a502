//! Links that fail the way networks do.
//!
//! A [`Link`] stands between two processes and forwards what they say until it
//! is told otherwise. On a link to Postgres the sessions are told apart by the
//! application name they begin with, so that one kind of session can be hurt
//! and the others left alone.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};

/// Every session of a link, whatever its application.
pub const ALL: &str = "";

/// Longest piece that is forwarded at once.
const PIECE: usize = 1 << 16;

/// Pieces of a reply that are held back at the most; more wait at the sender.
const HELD_PIECES: usize = 64;

/// What a link does to the sessions it carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Toxic {
    /// Nothing: everything passes.
    Pass,
    /// Each piece of a reply arrives this much later, in order.
    Delay(Duration),
    /// Replies pass at so many bytes a second.
    Throttle(u32),
    /// Nothing moves in either direction; it goes on where it was afterwards.
    Hold,
    /// What is said vanishes and no end of a connection is ever heard of: a
    /// host that is gone. A session that lost something stays lost.
    Swallow,
    /// Sessions are cut, and new ones as soon as they begin.
    Refuse,
    /// This share of the replies is lost: the request was forwarded, then the
    /// session is cut. On a link to Postgres only statements that are carried
    /// out count, not their preparation.
    LoseReplies(f64),
    /// Postgres delivers no notification in which the text does not occur. It
    /// is for sessions that begin afterwards: others may be amid a message.
    NotifyOnly(&'static str),
}

/// A proxy in front of a port of loopback.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: u16,
    target: AtomicU16,
    rules: watch::Sender<Vec<(&'static str, Toxic)>>,
    cuts: broadcast::Sender<&'static str>,
    lost: AtomicU64,
    dice: Mutex<StdRng>,
}

impl Link {
    /// Starts a link to a port; what it does at random follows from the seed.
    pub async fn to(target: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Arc::new(Inner {
            port: listener.local_addr().unwrap().port(),
            target: AtomicU16::new(target),
            rules: watch::channel(Vec::new()).0,
            cuts: broadcast::channel(16).0,
            lost: AtomicU64::new(0),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
        });
        let accepting = inner.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (link, cuts) = (accepting.clone(), accepting.cuts.subscribe());
                let rules = accepting.rules.subscribe();
                tokio::spawn(async move {
                    // However it ends, both sides find out by their own means.
                    Session::new(link, rules, cuts).carry(client).await.ok();
                });
            }
        });
        Self(inner)
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Leads new sessions elsewhere.
    pub fn retarget(&self, target: u16) {
        self.0.target.store(target, Ordering::SeqCst);
    }

    /// Does this to the sessions of an application, those that exist and those
    /// to come. What was said about these sessions before no longer counts.
    pub fn set(&self, application: &'static str, toxic: Toxic) {
        self.0.rules.send_modify(|rules| {
            rules.retain(|(name, _)| *name != application);
            rules.push((application, toxic));
        });
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.0.rules.send_modify(Vec::clear);
    }

    /// Cuts the sessions of an application, half of them politely.
    pub fn cut(&self, application: &'static str) {
        // Without a session there is nobody to tell.
        self.0.cuts.send(application).ok();
    }

    /// Returns how many replies and notifications were lost so far.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::SeqCst)
    }
}

/// Puts a link's port in the place of the database's own; returns the URL and
/// the port that stood there.
pub fn through(url: &str, port: u16) -> (String, u16) {
    let (before, after) = url.rsplit_once('@').expect("a user in the URL");
    let (host, path) = after.split_once('/').expect("a database in the URL");
    let target = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(5432);
    (format!("{before}@127.0.0.1:{port}/{path}"), target)
}

/// One connection through a link.
struct Session {
    link: Arc<Inner>,
    rules: watch::Receiver<Vec<(&'static str, Toxic)>>,
    cuts: broadcast::Receiver<&'static str>,
    /// How it names itself, once it has.
    application: String,
    /// Whether something of it was swallowed.
    is_lost: bool,
    /// Whether what was asked last counts as a request whose reply can be lost.
    asked: bool,
    /// Pieces of replies, and when each may go on.
    held: VecDeque<(Instant, Vec<u8>)>,
    /// What came of a message of Postgres that is not complete yet.
    message: Vec<u8>,
}

impl Session {
    fn new(
        link: Arc<Inner>,
        rules: watch::Receiver<Vec<(&'static str, Toxic)>>,
        cuts: broadcast::Receiver<&'static str>,
    ) -> Self {
        Self {
            link,
            rules,
            cuts,
            application: String::new(),
            is_lost: false,
            asked: false,
            held: VecDeque::new(),
            message: Vec::new(),
        }
    }

    /// Returns what is to be done to this session now.
    fn toxic(&mut self) -> Toxic {
        let rules = self.rules.borrow_and_update();
        let of = |name: &str| rules.iter().find(|(of, _)| *of == name).map(|(_, toxic)| *toxic);
        of(&self.application).or_else(|| of(ALL)).unwrap_or(Toxic::Pass)
    }

    async fn carry(mut self, mut client: TcpStream) -> io::Result<()> {
        if self.toxic() == Toxic::Swallow {
            // Nobody is there to connect to, and nobody says so.
            return self.until_cut().await;
        }
        let target = self.link.target.load(Ordering::SeqCst);
        let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut asked, mut answered) = (vec![0; PIECE], vec![0; PIECE]);
        loop {
            let toxic = self.toxic();
            if toxic == Toxic::Refuse {
                return self.cut(&client);
            }
            let is_held = toxic == Toxic::Hold;
            let (may_take, piece) = match toxic {
                Toxic::Throttle(rate) => {
                    (self.held.is_empty(), (rate as usize / 20).clamp(1, PIECE))
                }
                _ => (self.held.len() < HELD_PIECES, PIECE),
            };
            let due = self.held.front().map(|(due, _)| *due);
            tokio::select! {
                _ = self.rules.changed() => {}
                cut = self.cuts.recv() => {
                    if cut.is_ok_and(|name| name == ALL || name == self.application) {
                        return self.cut(&client);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !is_held => {
                    if let Some((_, piece)) = self.held.pop_front() {
                        client.write_all(&piece).await?;
                    }
                }
                read = client.read(&mut asked), if !is_held => {
                    let said = &asked[..read?];
                    if !self.ask(said, toxic) {
                        return self.until_cut().await;
                    }
                    if said.is_empty() {
                        return Ok(());
                    }
                    server.write_all(said).await?;
                }
                read = server.read(&mut answered[..piece]), if !is_held && may_take => {
                    let said = &answered[..read?];
                    if toxic == Toxic::Swallow || self.is_lost {
                        return self.until_cut().await;
                    }
                    if said.is_empty() {
                        return self.farewell(&mut client).await;
                    }
                    if !self.answer(said, toxic) {
                        return self.cut(&client);
                    }
                }
            }
        }
    }

    /// Takes note of what was asked; false when it vanishes.
    fn ask(&mut self, said: &[u8], toxic: Toxic) -> bool {
        const NAME: &[u8] = b"application_name\0";
        if self.application.is_empty() {
            let at = said.windows(NAME.len()).position(|part| part == NAME);
            if let Some(at) = at {
                let name = said[at + NAME.len()..].split(|byte| *byte == 0).next();
                self.application = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
            }
        }
        // A statement is carried out by a Bind; without a name this is no Postgres.
        self.asked |= self.application.is_empty() || said.first() == Some(&b'B');
        // Its name may have made it one that vanishes.
        toxic != Toxic::Swallow && self.toxic() != Toxic::Swallow
    }

    /// Holds back what is to be answered; false when it is lost.
    fn answer(&mut self, said: &[u8], toxic: Toxic) -> bool {
        let was_asked = std::mem::take(&mut self.asked);
        let now = Instant::now();
        let last = self.held.back().map_or(now, |(due, _)| *due);
        match toxic {
            Toxic::LoseReplies(share)
                if was_asked && self.link.dice.lock().unwrap().random_bool(share) =>
            {
                self.link.lost.fetch_add(1, Ordering::SeqCst);
                return false;
            }
            Toxic::Delay(delay) => self.held.push_back((last.max(now + delay), said.to_vec())),
            Toxic::Throttle(rate) => {
                let takes = Duration::from_secs(1) * said.len() as u32 / rate;
                self.held.push_back((last + takes, said.to_vec()));
            }
            Toxic::NotifyOnly(text) => {
                let passed = self.without_notifications(said, text);
                self.held.push_back((last, passed));
            }
            _ => {
                let mut piece = std::mem::take(&mut self.message);
                piece.extend_from_slice(said);
                self.held.push_back((last, piece));
            }
        }
        true
    }

    /// Drops complete notifications that do not hold `text`; keeps the start
    /// of a message until the rest of it came.
    fn without_notifications(&mut self, said: &[u8], text: &str) -> Vec<u8> {
        self.message.extend_from_slice(said);
        let mut passed = Vec::new();
        while let Some(header) = self.message.first_chunk::<5>() {
            let [kind, length @ ..] = *header;
            let end = 1 + u32::from_be_bytes(length) as usize;
            if self.message.len() < end {
                break;
            }
            let rest = self.message.split_off(end);
            let message = std::mem::replace(&mut self.message, rest);
            let holds = message.windows(text.len()).any(|part| part == text.as_bytes());
            if kind != b'A' || holds {
                passed.extend(message);
            } else {
                self.link.lost.fetch_add(1, Ordering::SeqCst);
            }
        }
        passed
    }

    /// Sends what is held back before the end is told.
    async fn farewell(&mut self, client: &mut TcpStream) -> io::Result<()> {
        while let Some((due, piece)) = self.held.pop_front() {
            sleep_until(due).await;
            client.write_all(&piece).await?;
        }
        Ok(())
    }

    /// Ends the session, with a reset half of the time.
    fn cut(&self, client: &TcpStream) -> io::Result<()> {
        if self.link.dice.lock().unwrap().random_bool(0.5) {
            client.set_zero_linger()?;
        }
        Ok(())
    }

    /// Keeps both connections open and silent.
    async fn until_cut(&mut self) -> io::Result<()> {
        self.is_lost = true;
        loop {
            match self.cuts.recv().await {
                Ok(name) if name == ALL || name == self.application => return Ok(()),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }
}
