//! Where webhooks may lead: hostile targets through the real loop, over a
//! network of the test's own that remembers every address that is dialled.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use taskcast::domain::{
    AllowedTarget, EventDraft, Json, Level, NewTask, RetryOverrides, TargetPolicy, Task, TaskId,
    Webhook,
};
use taskcast::engine::{Delivery, DeliveryState, WriteContext};
use taskcast::server::{Service, ServiceOptions};
use taskcast::store::memory::MemoryStore;
use taskcast::store::postgres::PostgresOptions;
use taskcast::store::{LocalBus, Opened, StorageOptions};
use taskcast::webhooks::{Dial, Network, Resolve, WebhookOptions};
use tokio::net::TcpStream;

use super::{note, settled, task_with};
use crate::support::receiver::{Receiver, Reply};
use crate::support::{Backend, on_every_store, until};

on_every_store![
    private_targets_are_refused_at_creation,
    no_forbidden_address_is_ever_dialled,
    a_name_that_is_not_allowed_looks_like_one_that_does_not_exist,
    an_operator_may_let_targets_through,
];

/// Rules: W17
async fn private_targets_are_refused_at_creation(backend: Backend) {
    let server = backend.start().await;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "localhost",
        "a.localhost.",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "172.31.0.1",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ] {
        let webhooks = json!([{"url": format!("http://{host}/")}]);
        let reply = server.post("/tasks", json!({"id": "refused", "webhooks": webhooks})).await;
        reply.refused_at(400, "invalid_request", "/webhooks/0/url");
    }
    server.get("/tasks/refused").await.refused(404, "task_not_found");
    let webhooks = json!([{"url": "http://1.1.1.1/"}, {"url": "http://[2606:4700:4700::1111]/"}]);
    server.create(json!({"webhooks": webhooks})).await;
}

/// Names with the addresses they have, one list after another; the last stays.
struct Names(Mutex<HashMap<&'static str, Vec<Vec<IpAddr>>>>);

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = self.0.lock().unwrap();
        let answers = names.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

/// Leads every address to one receiver and remembers which were dialled.
struct Recorder {
    dialled: Mutex<Vec<SocketAddr>>,
    to: SocketAddr,
}

#[async_trait]
impl Dial for Recorder {
    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        TcpStream::connect(self.to).await
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What is said of a name that cannot be reached, for whichever reason.
const UNREACHABLE_NAME: &str = "the host's name was not found, or leads where it is not allowed to";

const PUBLIC: &str = "93.184.215.14";
const PUBLIC_6: &str = "2606:2800:21f:cb07:6820:80da:af6b:8b2c";

/// Starts the whole service without a socket, over the store of a backend.
pub(super) async fn start(backend: &Backend, webhooks: WebhookOptions) -> Service {
    let options = ServiceOptions { webhooks, ..ServiceOptions::default() };
    match backend {
        Backend::Memory => {
            let started = Service::start(options, async |listener, _supervisor| {
                Ok::<_, Infallible>(Opened {
                    provider: "memory",
                    store: Arc::new(MemoryStore::new(1 << 24, listener)),
                    bus: Arc::new(LocalBus::default()),
                    poll_interval: Duration::from_secs(1),
                    closer: Box::new(|| Box::pin(std::future::ready(()))),
                })
            });
            started.await.unwrap()
        }
        Backend::Postgres(database) => {
            let storage = StorageOptions::Postgres(PostgresOptions::new(database.url()));
            Service::open(options, storage).await.unwrap()
        }
    }
}

pub(super) fn hook(url: &str, retries: u32) -> Webhook {
    let retry = RetryOverrides {
        retries: Some(retries),
        initial_delay_ms: Some(1),
        max_delay_ms: Some(1),
        ..RetryOverrides::default()
    };
    Webhook { url: url.into(), filter: None, secret: None, wrap: None, retry: Some(retry) }
}

/// Creates a task with these webhooks, past the checks of the request, and
/// returns what became of an event's deliveries, in their order.
pub(super) async fn outcomes(service: &Service, webhooks: Vec<Webhook>) -> Vec<Delivery> {
    let id = TaskId::parse("hostile").unwrap();
    let task = NewTask { webhooks: Some(webhooks), ..NewTask::new(id.clone()) };
    let task: Task = service.engine().create_task(task, None).await.unwrap().outcome;
    let event = EventDraft {
        event_type: "note".into(),
        level: Level::Info,
        data: Json::null(),
        series: None,
    };
    service.engine().publish(&id, vec![event], WriteContext::default()).await.unwrap();
    let mut all = until("every delivery has ended", || async {
        let all = service.engine().deliveries(&task, None, 1_000).await.unwrap();
        let is_over = !all.is_empty() && all.iter().all(|one| one.state != DeliveryState::Pending);
        is_over.then_some(all)
    })
    .await;
    all.sort_by_key(|one| one.id.hook.position());
    all
}

const HOSTILE: [&str; 40] = [
    // As addresses, in every spelling.
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0/",
    "http://0.0.0.0:8080/",
    "http://10.0.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://１２７.０.０.１/",
    "http://[::]/",
    "http://[::1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2001:0:7f00:1::]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    // As names that lead there.
    "https://loopback.example/",
    "http://mapped.example:8080/",
    "http://metadata.example/",
    "http://mixed.example/",
    "http://mixed6.example/",
    "http://localhost/",
];

/// Rules: W18
#[expect(clippy::too_many_lines, reason = "one run with everything hostile at once")]
async fn no_forbidden_address_is_ever_dialled(backend: Backend) {
    let receiver = Receiver::behaving(|received| match received.line.rsplit('/').next() {
        Some("redirect") => {
            Reply::With(307, "location", "http://169.254.169.254/latest/meta-data/".to_owned())
        }
        // Without a connection that could be used again.
        Some("again") => Reply::With(500, "connection", "close".to_owned()),
        _ => Reply::Status(200),
    })
    .await;
    let names = HashMap::from([
        ("loopback.example", vec![vec![ip("127.0.0.1")]]),
        ("mapped.example", vec![vec![ip("::ffff:10.0.0.1")]]),
        ("metadata.example", vec![vec![ip("169.254.169.254")]]),
        ("mixed.example", vec![vec![ip(PUBLIC), ip("127.0.0.1")]]),
        ("mixed6.example", vec![vec![ip(PUBLIC_6), ip("fd00:ec2::254")]]),
        ("localhost", vec![vec![ip("::1"), ip("127.0.0.1")]]),
        // Another address every time it is asked for.
        ("rebinding.example", vec![vec![ip(PUBLIC)], vec![ip("127.0.0.1")]]),
        ("public.example", vec![vec![ip(PUBLIC)]]),
        ("public6.example", vec![vec![ip(PUBLIC_6), ip(PUBLIC)]]),
    ]);
    let recorder = Arc::new(Recorder { dialled: Mutex::default(), to: receiver.address() });
    let network =
        Network { resolver: Arc::new(Names(Mutex::new(names))), dialler: recorder.clone() };
    let options = WebhookOptions { network, ..WebhookOptions::default() };
    let service = start(&backend, options).await;

    let mut webhooks: Vec<Webhook> = HOSTILE.iter().map(|url| hook(url, 0)).collect();
    webhooks.extend([
        hook("http://public.example/redirect", 3),
        hook("http://rebinding.example/again", 3),
        hook("http://public.example/fine", 0),
        hook("http://public6.example:8080/fine", 0),
        hook(&format!("http://{PUBLIC}/fine"), 0),
    ]);
    let all = outcomes(&service, webhooks).await;

    let (hostile, rest) = all.split_at(HOSTILE.len());
    for (url, delivery) in HOSTILE.iter().zip(hostile) {
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Failed, 1), "{url}");
        let last = delivery.last.as_ref().unwrap();
        assert_eq!((last.status, last.problem.as_deref()), (None, Some(UNREACHABLE_NAME)), "{url}");
    }
    let summary: Vec<_> = rest
        .iter()
        .map(|one| (one.state, one.attempts, one.last.as_ref().unwrap().status))
        .collect();
    assert_eq!(
        summary,
        [
            (DeliveryState::Failed, 1, Some(307)),
            (DeliveryState::Failed, 4, None),
            (DeliveryState::Delivered, 1, Some(200)),
            (DeliveryState::Delivered, 1, Some(200)),
            (DeliveryState::Delivered, 1, Some(200)),
        ]
    );
    let dialled = recorder.dialled.lock().unwrap().clone();
    let allowed = [SocketAddr::new(ip(PUBLIC), 80), SocketAddr::new(ip(PUBLIC_6), 8080)];
    assert!(dialled.iter().all(|address| allowed.contains(address)), "{dialled:?}");
    assert!(allowed.iter().all(|address| dialled.contains(address)), "{dialled:?}");
    assert!(receiver.received().iter().all(|one| !one.line.contains("meta-data")));
    service.stop(Duration::from_secs(5)).await;
}

/// Rules: W33
async fn a_name_that_is_not_allowed_looks_like_one_that_does_not_exist(backend: Backend) {
    let names = HashMap::from([
        ("database.internal", vec![vec![ip("10.0.0.1")]]),
        ("mixed.internal", vec![vec![ip(PUBLIC), ip("10.0.0.1")]]),
    ]);
    let receiver = Receiver::start().await;
    let recorder = Arc::new(Recorder { dialled: Mutex::default(), to: receiver.address() });
    let network =
        Network { resolver: Arc::new(Names(Mutex::new(names))), dialler: recorder.clone() };
    let service = start(&backend, WebhookOptions { network, ..WebhookOptions::default() }).await;
    let urls = ["http://database.internal/", "http://mixed.internal/", "http://nowhere.internal/"];
    let all = outcomes(&service, urls.map(|url| hook(url, 2)).into()).await;
    let seen: Vec<_> = all.iter().map(|one| (one.state, one.attempts, one.last.clone())).collect();
    assert_eq!(seen[0].0, DeliveryState::Failed);
    assert_eq!(seen[0].2.as_ref().unwrap().problem.as_deref(), Some(UNREACHABLE_NAME));
    assert!(seen.iter().all(|one| *one == seen[2]), "{seen:?}");
    assert_eq!(*recorder.dialled.lock().unwrap(), []);
    service.stop(Duration::from_secs(5)).await;
}

/// Rules: W19
async fn an_operator_may_let_targets_through(backend: Backend) {
    let receiver = Receiver::start().await;
    let allowed = r#"["127.0.0.0/8", "hooks.internal"]"#;
    let server = backend.start_with(&[("TASKCAST_WEBHOOK__ALLOW_TARGETS", allowed)]).await;
    let id = task_with(&server, json!([{"url": receiver.url("/")}])).await;
    server.publish(&id, note(1)).await;
    assert_eq!(settled(&server, &id).await[0]["state"], "delivered");
    let refused = json!({"webhooks": [{"url": "http://10.0.0.1/"}]});
    server.post("/tasks", refused).await.refused(400, "invalid_request");
    let server = backend.start_with(&[super::PRIVATE]).await;
    server.create(json!({"webhooks": [{"url": "http://10.0.0.1/"}]})).await;

    let names = HashMap::from([
        ("hooks.internal", vec![vec![ip("10.0.0.1")]]),
        ("other.internal", vec![vec![ip("10.0.0.2")]]),
    ]);
    let recorder = Arc::new(Recorder { dialled: Mutex::default(), to: receiver.address() });
    let network =
        Network { resolver: Arc::new(Names(Mutex::new(names))), dialler: recorder.clone() };
    let allowed = vec![AllowedTarget::parse("hooks.internal").unwrap()];
    let targets = TargetPolicy::new(false, allowed);
    let service = start(&backend, WebhookOptions { network, targets, ..WebhookOptions::default() });
    let service = service.await;
    let webhooks = vec![hook("http://hooks.internal/", 0), hook("http://other.internal/", 0)];
    let all = outcomes(&service, webhooks).await;
    assert_eq!(all[0].state, DeliveryState::Delivered);
    assert_eq!(all[1].state, DeliveryState::Failed);
    assert_eq!(*recorder.dialled.lock().unwrap(), [SocketAddr::new(ip("10.0.0.1"), 80)]);
    service.stop(Duration::from_secs(5)).await;
}
