use k8s_openapi::api::core::v1::{Event, ObjectReference};
use tokio::time::Instant;

use super::correlator::{Correlator, Verdict};

fn event(object: &str, message: &str) -> Event {
    Event {
        involved_object: ObjectReference { name: Some(object.into()), ..ObjectReference::default() },
        reason: Some("Failed".into()),
        message: Some(message.into()),
        count: Some(1),
        metadata: kube::core::ObjectMeta { name: Some(format!("{object}.{message}")), ..Default::default() },
        ..Event::default()
    }
}

fn send(correlator: &mut Correlator, event: Event, now: Instant) -> Option<Event> {
    let (Verdict::Create(event) | Verdict::Repeat(event)) = correlator.correlate(event, now) else { return None };
    correlator.sent(event.clone());
    Some(event)
}

#[tokio::test(start_paused = true)]
async fn the_same_event_again_raises_the_count() {
    let mut correlator = Correlator::default();
    let now = Instant::now();
    send(&mut correlator, event("web", "x"), now);
    let mut again = event("web", "x");
    again.metadata.name = Some("another".into());
    match correlator.correlate(again, now) {
        Verdict::Repeat(event) => {
            assert_eq!(event.count, Some(2));
            assert_eq!(event.metadata.name.as_deref(), Some("web.x"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn many_alike_become_one() {
    let mut correlator = Correlator::default();
    let now = Instant::now();
    let sent: Vec<_> = (0..12).filter_map(|n| send(&mut correlator, event("web", &n.to_string()), now)).collect();
    assert_eq!(sent[8].message.as_deref(), Some("8"));
    assert_eq!(sent[9].message.as_deref(), Some("(combined from similar events): 9"));
    assert_eq!(sent[11].message.as_deref(), Some("(combined from similar events): 11"));
    assert_eq!(sent[11].count, Some(3));
    assert_eq!(sent[11].metadata.name, sent[9].metadata.name);
}

#[tokio::test(start_paused = true)]
async fn a_spammer_is_cut_short_and_others_are_not() {
    let mut correlator = Correlator::default();
    let now = Instant::now();
    let sent = (0..100).filter_map(|_| send(&mut correlator, event("web", "x"), now)).count();
    assert_eq!(sent, 25);
    assert!(send(&mut correlator, event("db", "x"), now).is_some());
    let later = now + std::time::Duration::from_secs(301);
    assert!(send(&mut correlator, event("web", "x"), later).is_some());
    assert!(send(&mut correlator, event("web", "x"), later).is_none());
}
