//! A responder that speaks just enough of the wire contract, as fast as it can.
//!
//! It stores events as the frames they become and sends those to readers as
//! they are. It checks nothing: what it is sent is known to be right.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

/// Most that is sent to a reader at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Starts a responder on a free port, in a thread that ends with the process.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("responder".to_owned()).spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            let tasks = Tasks::default();
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let tasks = tasks.clone();
                spawn_local(async move {
                    // Whoever measures hangs up when it has enough.
                    let _ = Connection { stream, tasks, output: Vec::new() }.serve().await;
                });
            }
            #[expect(unreachable_code, reason = "it tells the type of the error")]
            Ok::<(), io::Error>(())
        })
    })?;
    Ok(address)
}

/// The logs of all tasks, by id.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<HashMap<Vec<u8>, Rc<Log>>>>);

impl Tasks {
    fn log(&self, id: &[u8]) -> Rc<Log> {
        if let Some(log) = self.0.borrow().get(id) {
            return log.clone();
        }
        self.0.borrow_mut().entry(id.to_vec()).or_default().clone()
    }
}

#[derive(Default)]
struct Log {
    /// Frames, as they are sent.
    frames: RefCell<Vec<u8>>,
    next: std::cell::Cell<u64>,
    is_over: std::cell::Cell<bool>,
    news: Notify,
}

impl Log {
    /// Adds an event and writes it as its publisher is answered. `tail` is the
    /// event from its data on.
    fn append(
        &self,
        task: &[u8],
        event_type: &str,
        tail: &[u8],
        answer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let index = self.next.replace(self.next.get() + 1);
        let task = String::from_utf8_lossy(task);
        write!(
            answer,
            "{{\"id\":\"{index:026}\",\"taskId\":\"{task}\",\"index\":{index},\
             \"timestamp\":1700000000000,\"type\":\"{event_type}\",\"level\":\"info\","
        )?;
        answer.extend_from_slice(tail);
        let mut frames = self.frames.borrow_mut();
        write!(
            frames,
            "event: taskcast.event\ndata: {{\"filteredIndex\":{index},\"rawIndex\":{index},\
             \"eventId\":\"{index:026}\",\"taskId\":\"{task}\",\"type\":\"{event_type}\",\
             \"timestamp\":1700000000000,\"level\":\"info\","
        )?;
        frames.extend_from_slice(tail);
        write!(frames, "\nid: {index:026}\n\n")
    }

    fn end(&self) {
        let done = b"event: taskcast.done\ndata: {\"reason\":\"completed\"}\n\n";
        self.frames.borrow_mut().extend_from_slice(done);
        self.is_over.set(true);
    }
}

struct Connection {
    stream: TcpStream,
    tasks: Tasks,
    /// The answer that is being written.
    output: Vec<u8>,
}

#[expect(clippy::future_not_send, reason = "a connection stays on the thread of the responder")]
impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        let (mut input, mut filled) = (vec![0; 256 << 10], 0);
        loop {
            let read = self.stream.read(&mut input[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            let Some(head) = memmem::find(&input[..filled], b"\r\n\r\n").map(|at| at + 4) else {
                continue;
            };
            let end = head + length(&input[..head]);
            if filled < end {
                continue;
            }
            let mut words = input[..head].split(|byte| *byte == b' ');
            let method = words.next().unwrap_or_default();
            let path = words.next().unwrap_or_default();
            let id = path.split(|byte| *byte == b'/').nth(2).unwrap_or_default();
            if method == b"GET" && !id.is_empty() {
                let log = self.tasks.log(id);
                return self.stream(&log).await;
            }
            self.answer(method, path, id, &input[head..end])?;
            self.stream.write_all(&self.output).await?;
            filled = 0;
        }
    }

    fn answer(&mut self, method: &[u8], path: &[u8], id: &[u8], body: &[u8]) -> io::Result<()> {
        let mut answer = Vec::with_capacity(body.len() * 3 + 512);
        let status = match method {
            b"POST" if path == b"/tasks" => {
                answer.extend_from_slice(body);
                "201 Created"
            }
            b"POST" => {
                let log = self.tasks.log(id);
                publish(&log, id, body, &mut answer)?;
                log.news.notify_waiters();
                "201 Created"
            }
            b"PATCH" => {
                let log = self.tasks.log(id);
                log.append(id, "taskcast:status", b"\"data\":{\"status\":\"x\"}}", &mut answer)?;
                if memmem::find(body, b"completed").is_some() {
                    log.end();
                }
                log.news.notify_waiters();
                "200 OK"
            }
            _ => "404 Not Found",
        };
        self.output.clear();
        write!(
            self.output,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Request-Id: 0123456789\r\n\
             Date: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        )?;
        self.output.extend_from_slice(&answer);
        Ok(())
    }

    /// Sends a log from its beginning, and what is added to it.
    async fn stream(mut self, log: &Log) -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        let (mut sent, mut chunk) = (0, Vec::new());
        loop {
            // Asked for before looking, so that nothing is missed in between.
            let news = log.news.notified();
            chunk.clear();
            {
                let frames = log.frames.borrow();
                let some = &frames[sent..frames.len().min(sent + CHUNK_BYTES)];
                if !some.is_empty() {
                    write!(chunk, "{:x}\r\n", some.len())?;
                    chunk.extend_from_slice(some);
                    chunk.extend_from_slice(b"\r\n");
                    sent += some.len();
                }
            }
            if !chunk.is_empty() {
                self.stream.write_all(&chunk).await?;
            } else if log.is_over.get() {
                return self.stream.write_all(b"0\r\n\r\n").await;
            } else {
                news.await;
            }
        }
    }
}

/// Stores the events of a request.
fn publish(log: &Log, id: &[u8], body: &[u8], answer: &mut Vec<u8>) -> io::Result<()> {
    let tail = |event: &[u8]| memmem::find(event, b"\"data\":").unwrap_or(0);
    let Some(batch) = body.strip_prefix(b"[") else {
        return log.append(id, "bench.delta", &body[tail(body)..], answer);
    };
    let mut rest = &batch[..batch.len() - 1];
    answer.push(b'[');
    while !rest.is_empty() {
        let end = memmem::find(rest, b"},{\"type\"").map_or(rest.len(), |at| at + 1);
        log.append(id, "bench.delta", &rest[tail(rest)..end], answer)?;
        answer.push(if end == rest.len() { b']' } else { b',' });
        rest = &rest[(end + 1).min(rest.len())..];
    }
    Ok(())
}

/// Returns how long the body is that the head announces.
fn length(head: &[u8]) -> usize {
    let name = b"Content-Length: ";
    let Some(at) = memmem::find(head, name) else { return 0 };
    let digits = head[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}
