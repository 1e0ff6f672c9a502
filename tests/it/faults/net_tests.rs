//! Links do to connections what they say.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::net::{ALL, Link, Toxic};
use crate::support::within;

/// Long enough for what is not held up.
const MOMENT: Duration = Duration::from_millis(200);

/// A link to a server that says everything back.
async fn echo() -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = client.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    Link::to(port, 1).await
}

/// A message as Postgres frames them.
fn message(kind: u8, text: &str) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend((text.len() as u32 + 4).to_be_bytes());
    message.extend(text.as_bytes());
    message
}

/// Begins a session that says its name, as one of Postgres does.
async fn session(link: &Link, application: &str) -> TcpStream {
    let mut session = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
    let hello = message(b'R', &format!("application_name\0{application}\0"));
    assert_eq!(say(&mut session, &hello).await.unwrap(), hello);
    session
}

/// Says something and returns what comes back.
async fn say(session: &mut TcpStream, said: &[u8]) -> io::Result<Vec<u8>> {
    session.write_all(said).await?;
    let mut heard = vec![0; said.len()];
    within("an answer or an end", session.read_exact(&mut heard)).await?;
    Ok(heard)
}

async fn is_silent(session: &mut TcpStream) -> bool {
    timeout(MOMENT, session.read_u8()).await.is_err()
}

#[tokio::test]
async fn a_delay_and_a_throttle_make_replies_late() {
    let link = echo().await;
    let mut slow = session(&link, "slow").await;
    let began = Instant::now();
    link.set("slow", Toxic::Delay(MOMENT));
    say(&mut slow, b"B").await.unwrap();
    assert!(began.elapsed() >= MOMENT);
    let began = Instant::now();
    link.set("slow", Toxic::Throttle(1_000));
    say(&mut slow, &[b'B'; 300]).await.unwrap();
    assert!(began.elapsed() >= MOMENT);
}

#[tokio::test]
async fn what_was_held_goes_on_and_what_was_swallowed_never_does() {
    let link = echo().await;
    let (mut held, mut swallowed) = (session(&link, "held").await, session(&link, "lost").await);
    link.set("held", Toxic::Hold);
    link.set("lost", Toxic::Swallow);
    held.write_all(b"B").await.unwrap();
    swallowed.write_all(b"B").await.unwrap();
    let (is_held, is_swallowed) = tokio::join!(is_silent(&mut held), is_silent(&mut swallowed));
    assert!(is_held && is_swallowed);
    link.heal();
    assert_eq!(within("what was held", held.read_u8()).await.unwrap(), b'B');
    assert!(is_silent(&mut swallowed).await);
    say(&mut session(&link, "lost").await, b"B").await.unwrap();
}

#[tokio::test]
async fn only_sessions_that_are_meant_are_cut() {
    let link = echo().await;
    let (mut one, mut other) = (session(&link, "one").await, session(&link, "other").await);
    link.cut("one");
    assert!(say(&mut one, b"B").await.is_err());
    say(&mut other, b"B").await.unwrap();
    link.set(ALL, Toxic::Refuse);
    assert!(say(&mut other, b"B").await.is_err());
}

#[tokio::test]
async fn a_lost_reply_is_one_to_a_statement_that_was_carried_out() {
    let link = echo().await;
    let mut writer = session(&link, "writer").await;
    link.set("writer", Toxic::LoseReplies(1.0));
    say(&mut writer, b"P: prepare").await.unwrap();
    assert_eq!(link.lost(), 0);
    assert!(say(&mut writer, b"B: carry out").await.is_err());
    assert_eq!(link.lost(), 1);
}

#[tokio::test]
async fn notifications_are_told_from_other_messages() {
    let link = echo().await;
    link.set("listener", Toxic::NotifyOnly("ping"));
    let mut listener = session(&link, "listener").await;
    let passing = [message(b'A', "a ping"), message(b'C', "LISTEN")].concat();
    let all = [&passing[..11], &message(b'A', "news"), &passing[11..]].concat();
    // In pieces that end amid a message.
    for piece in all.chunks(7) {
        listener.write_all(piece).await.unwrap();
    }
    let mut heard = vec![0; passing.len()];
    within("the messages that pass", listener.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, passing);
    assert_eq!(link.lost(), 1);
}
