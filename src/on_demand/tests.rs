use super::*;
use rstest::rstest;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

#[rstest]
#[case("www.example.com", true)]
#[case("xn--mnchen-3ya.example", true)]
#[case("localhost", false)]
#[case("192.0.2.1", false)]
#[case("2001:db8::1", false)]
#[case("*.example.com", false)]
#[case("a_b.example.com", false)]
#[case("-a.example.com", false)]
#[case("a..example.com", false)]
#[case("1.2.3", false)]
#[case("", false)]
fn only_host_names_can_be_somebodys(#[case] host: &str, #[case] is_one: bool) {
    assert_eq!(stranger(host).is_some(), is_one);
}

#[rstest]
#[case("shop.example", true)]
#[case("www.shop.example", false)]
#[case("a.customers.example", true)]
#[case("b.a.customers.example", true)]
#[case("customers.example", false)]
#[case("evilcustomers.example", false)]
#[case("customers.example.evil", false)]
fn patterns_cover_any_depth(#[case] host: &str, #[case] allowed: bool) {
    let on_demand = OnDemand {
        site: name("www.example.com"),
        allow: vec!["shop.example".to_owned(), "*.customers.example".to_owned()],
        ask: None,
        max_names: 1,
        max_new_per_hour: 1,
    };
    assert_eq!(is_allowed(&on_demand, &name(host)), allowed);
}

#[test]
fn handshakes_for_one_name_make_one_ring() {
    let (doorbell, mut rings) = Doorbell::new();
    let now = Instant::now();
    let waiting: Vec<_> = (0..50).map(|_| doorbell.ring("a.example", now).unwrap()).collect();
    let ring = rings.try_recv().unwrap();
    assert!(rings.try_recv().is_err());
    ring.welcome();
    assert!(waiting.iter().all(|waiting| *waiting.borrow() == Some(true)));
    assert!(doorbell.ring("a.example", now).is_some());
    assert!(rings.try_recv().is_ok(), "what was answered is asked about again");
}

#[test]
fn a_refusal_is_remembered_for_its_time() {
    let (doorbell, mut rings) = Doorbell::new();
    let now = Instant::now();
    let until = now + Duration::from_secs(300);
    let waiting = doorbell.ring("a.example", now).unwrap();
    rings.try_recv().unwrap().refuse(Some(until));
    assert_eq!(*waiting.borrow(), Some(false));
    assert!(doorbell.ring("a.example", until - Duration::from_secs(1)).is_none());
    assert!(doorbell.ring("a.example", until).is_some());
    drop(rings.try_recv().unwrap());
    let waiting = doorbell.ring("b.example", now).unwrap();
    drop(rings.try_recv().unwrap());
    assert_eq!(*waiting.borrow(), Some(false), "nobody waits for an answer that nobody gives");
}

#[test]
fn a_million_names_take_no_more_room_than_few() {
    let (doorbell, mut rings) = Doorbell::new();
    let now = Instant::now();
    let mut taken = Vec::new();
    for number in 0..10_000 {
        taken.extend(doorbell.ring(&format!("n{number}.example"), now));
    }
    assert_eq!((taken.len(), doorbell.lock().waiting.len()), (MAX_ASKED, MAX_ASKED));
    while let Ok(ring) = rings.try_recv() {
        ring.refuse(None);
    }
    let state = doorbell.lock();
    assert_eq!((state.waiting.len(), state.asked), (0, 0));
    drop(state);
    for number in 0..50_000 {
        doorbell.lock().refused.put(name(&format!("n{number}.example")), now + Duration::from_secs(1));
    }
    assert!(doorbell.ring("n49999.example", now).is_none());
    assert!(doorbell.ring("n1.example", now).is_some(), "the oldest is forgotten");
}

#[test]
fn names_that_wait_for_their_order_keep_nobody_from_asking() {
    let (doorbell, mut rings) = Doorbell::new();
    let now = Instant::now();
    let mut ordered = Vec::new();
    for number in 0..MAX_ORDERED {
        assert!(doorbell.ring(&format!("n{number}.example"), now).is_some());
        let ring = rings.try_recv().unwrap();
        assert_eq!(ring.wait_for_order(), Some(number + 1));
        ordered.push(ring);
    }
    doorbell.ring("other.example", now).unwrap();
    let other = rings.try_recv().unwrap();
    assert_eq!(other.wait_for_order(), None);
    ordered.clear();
    assert_eq!(other.wait_for_order(), Some(1));
}
