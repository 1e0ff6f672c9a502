//! Wakes: hints that arrive, or say that some may be missing.

use taskcast::store::{Bus as _, BusHealth, LocalBus, Moved, Wake};

use super::open::Fresh;
use super::{create, draft, head, publish};
use crate::support::{Backend, on_every_store, until, within};

on_every_store![a_healthy_bus_or_none_and_no_restart_to_begin_with];

async fn a_healthy_bus_or_none_and_no_restart_to_begin_with(backend: Backend) {
    let (writer, reader) = Fresh::open_two(&backend).await;
    let id = create(&*writer, "task").await.spec.id;
    if reader.bus.health() == BusHealth::Local {
        // Nobody else is there, so whatever is announced is heard by nobody.
        assert_eq!(reader.bus.restarts(), 0);
        return;
    }
    until("the listener is proven to hear", || async {
        (reader.bus.health() == BusHealth::Healthy).then_some(())
    })
    .await;
    publish(&*writer, &id, vec![draft("n", "1")]).await;
    let head = head(&*writer, &id).await;
    let moved = Moved { number: head.task.number, next_index: 1, urgent: true };
    writer.bus.announce(&[moved]);
    within("the wake arrives at the other instance", async {
        loop {
            if let Wake::Moved(heard) = reader.bus.next().await
                && heard.iter().any(|heard| heard.number == moved.number && heard.next_index == 1)
            {
                return;
            }
        }
    })
    .await;
    assert_eq!(reader.bus.restarts(), 0);
}

#[tokio::test]
async fn the_bus_of_a_single_instance_says_nothing() {
    let bus = LocalBus::default();
    bus.announce(&[]);
    assert_eq!((bus.health(), bus.restarts()), (BusHealth::Local, 0));
    assert!(futures_util::FutureExt::now_or_never(bus.next()).is_none());
}
