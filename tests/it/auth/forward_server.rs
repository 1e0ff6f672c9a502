//! A service to ask who a caller is, which does as it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the service does when it is asked.
#[derive(Debug, Clone)]
pub(super) enum Behaviour {
    /// Answers with a status and a body.
    Answer(u16, String),
    /// Says nothing until it does something else.
    Hang,
    /// Hangs up.
    Reset,
}

/// Headers of a question, by lower-case name.
pub(super) type Question = HashMap<String, String>;

/// The service.
pub(super) struct ForwardServer {
    /// Where it is.
    pub(super) url: String,
    behaviour: watch::Sender<Behaviour>,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl ForwardServer {
    /// Starts a service that lets everyone do what these claims say.
    pub(super) async fn start(claims: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/judge?key=canary", listener.local_addr().unwrap());
        let behaviour = watch::Sender::new(Behaviour::Answer(200, claims.to_string()));
        let asked: Arc<Mutex<Vec<Question>>> = Arc::default();
        let (told, questions) = (behaviour.subscribe(), asked.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, told.clone(), questions.clone()));
            }
        });
        Self { url, behaviour, asked }
    }

    /// Does something else from now on.
    pub(super) fn now(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// Answers with these claims from now on.
    pub(super) fn allow(&self, claims: &Value) {
        self.now(Behaviour::Answer(200, claims.to_string()));
    }

    /// Returns what was asked so far.
    pub(super) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut connection: TcpStream,
    mut told: watch::Receiver<Behaviour>,
    asked: Arc<Mutex<Vec<Question>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut question = Question::from([(":line".to_owned(), lines.next().unwrap().to_owned())]);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        question.insert(name.to_lowercase(), value.to_owned());
    }
    asked.lock().unwrap().push(question);
    loop {
        let behaviour = told.borrow_and_update().clone();
        match behaviour {
            Behaviour::Reset => return,
            Behaviour::Hang if told.changed().await.is_err() => return,
            Behaviour::Hang => {}
            Behaviour::Answer(status, body) => {
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{body}"
                );
                connection.write_all(answer.as_bytes()).await.ok();
                return;
            }
        }
    }
}
