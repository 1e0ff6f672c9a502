//! Connections that are kept, and what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{attempts, note, settled, start, task_with};
use crate::support::{Backend, on_every_store, until};

on_every_store![losing_a_connection_that_was_kept_is_no_attempt, losing_a_new_connection_is_one];

/// A receiver that answers the first request of a connection and closes it
/// when it has read the second one, as if both had crossed on the way.
struct Closing {
    address: String,
    answered: Arc<AtomicUsize>,
    cut: Arc<AtomicUsize>,
}

impl Closing {
    /// Starts one; `first` is how many requests a connection gets answers for.
    async fn start(first: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answered, cut) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (answered.clone(), cut.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, first, counts.clone()));
            }
        });
        Self { address, answered, cut }
    }
}

async fn answer(
    mut stream: TcpStream,
    first: usize,
    (answered, cut): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    for number in 0.. {
        if !read_request(&mut stream).await {
            return;
        }
        if number == first {
            cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
        answered.fetch_add(1, Ordering::SeqCst);
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        if stream.write_all(response).await.is_err() {
            return;
        }
    }
}

/// Reads a whole request, or tells that the connection has ended.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() >= length {
                return true;
            }
        }
        match stream.read_buf(&mut read).await {
            Ok(count) if count > 0 => {}
            _ => return false,
        }
    }
}

/// Rules: W31
async fn losing_a_connection_that_was_kept_is_no_attempt(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Closing::start(1).await);
    let url = format!("http://{}/", receiver.address);
    let id = task_with(&server, json!([{"url": url, "retry": {"retries": 0}}])).await;
    for number in 0..12 {
        server.publish(&id, note(number)).await;
        until("it is delivered", || async {
            (receiver.answered.load(Ordering::SeqCst) > number).then_some(())
        })
        .await;
    }
    let all = settled(&server, &id).await;
    assert!(receiver.cut.load(Ordering::SeqCst) > 0, "some connection was used again");
    let bad = all.iter().filter(|one| one["state"] != "delivered" || attempts(one) != 1).count();
    assert_eq!(bad, 0, "of {} deliveries", all.len());
}

/// Rules: W31
async fn losing_a_new_connection_is_one(backend: Backend) {
    let (server, receiver) = (start(&backend).await, Closing::start(0).await);
    let url = format!("http://{}/", receiver.address);
    let retry = json!({"retries": 1, "initialDelayMs": 0});
    let id = task_with(&server, json!([{"url": url, "retry": retry}])).await;
    server.publish(&id, note(1)).await;
    let failed = settled(&server, &id).await.remove(0);
    assert_eq!((&failed["state"], attempts(&failed)), (&json!("failed"), 2));
    assert_eq!(receiver.cut.load(Ordering::SeqCst), 2);
}
