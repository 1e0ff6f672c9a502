//! A receiver of Sentry envelopes.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::until;

/// Takes what is sent to a project, for ever.
#[derive(Debug, Clone)]
pub struct Receiver {
    port: u16,
    envelopes: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let envelopes: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = envelopes.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let into = into.clone();
                tokio::spawn(async move {
                    // A sender that hangs up has sent nothing.
                    if let Some(envelope) = take_one(stream).await {
                        into.lock().push(envelope);
                    }
                });
            }
        });
        Self { port, envelopes }
    }

    /// Returns the DSN of the project.
    pub fn dsn(&self) -> String {
        format!("http://key@127.0.0.1:{}/42", self.port)
    }

    /// Returns everything that was sent, as one text.
    pub fn text(&self) -> String {
        self.envelopes.lock().join("\n")
    }

    /// Returns the reports that were sent, in order.
    pub fn reports(&self) -> Vec<Value> {
        let envelopes = self.envelopes.lock();
        envelopes.iter().flat_map(|envelope| reports_of(envelope)).collect()
    }

    /// Returns the kinds of the reports that were sent, sorted.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self
            .reports()
            .iter()
            .map(|report| super::client::text_of(&report["tags"]["kind"]))
            .collect();
        kinds.sort();
        kinds
    }

    /// Waits for the first report of a kind.
    pub async fn report(&self, kind: &str) -> Value {
        until(&format!("a report of {kind}"), || async {
            self.reports().into_iter().find(|report| report["tags"]["kind"] == kind)
        })
        .await
    }
}

/// Reads one request, answers it and returns its body.
async fn take_one(stream: TcpStream) -> Option<String> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head).await.ok()? > 2 {
        let line = head.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(answer).await.ok()?;
    String::from_utf8(body).ok()
}

/// Returns the reports in an envelope: lines that follow the head of an event.
fn reports_of(envelope: &str) -> Vec<Value> {
    let lines: Vec<Value> =
        envelope.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0]["type"] == "event");
    pairs.map(|pair| pair[1].clone()).collect()
}
