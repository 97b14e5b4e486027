use proptest::prelude::*;

use super::*;

fn share() -> impl Strategy<Value = Share> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
    let reservation =
        times.prop_map(
            |(budget_ns, period_ns, deadline_ns, hard)| ReservationRequest {
                budget_ns,
                period_ns,
                deadline_ns,
                hard,
            },
        );
    let host_cpus = proptest::collection::vec(any::<usize>(), 0..5);
    let share = (
        proptest::option::of(reservation),
        proptest::option::of(host_cpus),
        any::<Option<u32>>(),
    );
    share.prop_map(|(reservation, host_cpus, weight)| Share {
        reservation,
        host_cpus,
        weight,
    })
}

fn join() -> impl Strategy<Value = JoinRequest> {
    let vcpu = (any::<i32>(), share()).prop_map(|(tid, share)| VcpuRequest { tid, share });
    let vcpus = proptest::collection::vec(vcpu, 0..4);
    let console = proptest::option::of("/?.{0,20}");
    let fields = (
        ".{0,70}",
        console,
        ".{0,70}",
        any::<u32>(),
        any::<i32>(),
        any::<u32>(),
        any::<bool>(),
        vcpus,
    );
    fields.prop_map(
        |(name, console, hints, weight, kick_signal, restarts, is_paused, vcpus)| JoinRequest {
            name,
            console,
            hints,
            weight,
            kick_signal,
            restarts,
            is_paused,
            vcpus,
        },
    )
}

fn ended() -> impl Strategy<Value = GuestEnded> {
    (any::<bool>(), ".{0,70}").prop_map(|(ok, text)| GuestEnded { ok, text })
}

fn message() -> impl Strategy<Value = GuestMessage> {
    let change = (
        any::<Option<u32>>(),
        proptest::option::of((any::<u32>(), share())),
    );
    prop_oneof![
        any::<u32>().prop_map(|protocol| GuestMessage::Hello { protocol }),
        join().prop_map(GuestMessage::Join),
        change.prop_map(|(weight, vcpu)| GuestMessage::Change(Change { weight, vcpu })),
        ".{0,70}".prop_map(|source| GuestMessage::Hints { source }),
        any::<u32>().prop_map(|restarts| GuestMessage::Restarted { restarts }),
        ended().prop_map(GuestMessage::Restarting),
        ended().prop_map(GuestMessage::Leave),
    ]
}

/// Whatever the bytes are, they are a message that can be checked, or refused.
fn parse_and_check(bytes: &[u8]) -> Option<GuestMessage> {
    let message: GuestMessage = serde_json::from_slice(bytes).ok()?;
    match &message {
        GuestMessage::Join(request) => {
            if let Ok(shares) = request.check() {
                assert_eq!(shares.len(), request.vcpus.len());
            }
        }
        GuestMessage::Change(change) => {
            for vcpus in [1, 4] {
                let vcpu = change.check(vcpus).ok().flatten();
                assert!(vcpu.is_none_or(|(vcpu, _)| vcpu < vcpus));
            }
        }
        GuestMessage::Hints { source } => {
            let fits = source.len() <= MAX_HINTS;
            assert!(fits || check_hints(source).is_err());
        }
        GuestMessage::Leave(ended) | GuestMessage::Restarting(ended) => {
            let fits = ended.text.len() <= MAX_END;
            assert!(fits || ended.check().is_err());
        }
        GuestMessage::Hello { .. } | GuestMessage::Restarted { .. } => {}
    }
    Some(message)
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in message()) {
        let bytes = serde_json::to_vec(&message).expect("JSON");
        prop_assert_eq!(parse_and_check(&bytes), Some(message));
    }

    #[test]
    fn messages_with_changed_bytes_are_messages_or_refused(
        message in message(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
    ) {
        let mut bytes = serde_json::to_vec(&message).expect("JSON");
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        parse_and_check(&bytes);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused(bytes: Vec<u8>) {
        prop_assert!(parse_and_check(&bytes).is_none());
    }
}

fn request() -> JoinRequest {
    JoinRequest {
        name: "web".into(),
        console: None,
        hints: String::new(),
        weight: 100,
        kick_signal: 35,
        restarts: 0,
        is_paused: false,
        vcpus: vec![VcpuRequest {
            tid: 7,
            share: Share::default(),
        }],
    }
}

#[test]
fn deep_json_is_refused() {
    let deep = "[".repeat(100_000);
    assert!(parse_and_check(deep.as_bytes()).is_none());
}

#[test]
fn an_unknown_field_is_refused_instead_of_ignored() {
    let known = r#"{"hello":{"protocol":1}}"#;
    assert!(parse_and_check(known.as_bytes()).is_some());
    let unknown = r#"{"hello":{"protocol":1,"x":2}}"#;
    assert!(parse_and_check(unknown.as_bytes()).is_none());
}

#[test]
fn requests_that_no_pool_can_grant_are_refused() {
    let changed = |change: &dyn Fn(&mut JoinRequest)| {
        let mut request = request();
        change(&mut request);
        request.check()
    };
    assert!(request().check().is_ok());
    for name in ["", "a\nb", "ä", &"x".repeat(MAX_NAME + 1)] {
        assert_eq!(
            changed(&|request| request.name = name.into()),
            Err(RequestError::Name)
        );
    }
    for weight in [0, MAX_WEIGHT + 1] {
        let refused = changed(&|request| request.weight = weight);
        assert_eq!(refused, Err(RequestError::Weight(weight)));
    }
    let refused = changed(&|request| request.vcpus[0].share.weight = Some(0));
    assert_eq!(refused, Err(RequestError::Weight(0)));
    let refused = changed(&|request| request.hints = "a\nb".into());
    assert_eq!(refused, Err(RequestError::Text("source of the hints")));
    for path in ["relative", &format!("/{}", "x".repeat(MAX_PATH))] {
        let refused = changed(&|request| request.console = Some(path.into()));
        assert_eq!(refused, Err(RequestError::Text("path of the console")));
    }
    let refused = changed(&|request| request.vcpus.clear());
    assert_eq!(refused, Err(RequestError::Vcpus(0)));
    let refused = changed(&|request| request.vcpus.push(request.vcpus[0].clone()));
    assert_eq!(refused, Err(RequestError::SameThread(7)));
    let refused = changed(&|request| request.vcpus[0].share.host_cpus = Some(vec![]));
    assert_eq!(refused, Err(RequestError::NoHostCpu));
    let refused =
        changed(&|request| request.vcpus[0].share.host_cpus = Some(vec![0; MAX_CPUS + 1]));
    assert_eq!(refused, Err(RequestError::HostCpus(MAX_CPUS + 1)));
}

#[test]
fn a_list_of_host_cpus_is_sorted_and_has_each_once() {
    let share = Share {
        host_cpus: Some(vec![3, 1, 3]),
        ..Share::default()
    };
    let checked = share.check().expect("it makes sense");
    assert_eq!(checked.host_cpus, Some(vec![1, 3]));
}
