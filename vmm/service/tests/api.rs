//! The API over a real socket.

mod common;

use std::io::{Read, Write};

use baton_api::{EventKind, GuestChange, GuestState, ReservationText};
use baton_service::grants::{GrantTerms, Grantee};
use common::{NOBODY, TestService, answer, as_user, config, document, join_request, until};
use serde_json::{Value, json};

#[test]
fn a_pool_without_guests_shows_itself_its_snapshot_and_its_metrics() {
    let pool = TestService::start("empty", Vec::new());
    let (status, body) = pool.request("GET", "/v1/pool", "");
    assert_eq!((status, &body["guests"]), (200, &json!(0)));
    assert_eq!(body["host_cpus"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        pool.request("GET", "/v1/guests", ""),
        (200, json!({ "guests": [] }))
    );
    let (status, snapshot) = pool.request("GET", "/snapshot", "");
    assert_eq!((status, &snapshot["vcpus"]), (200, &json!([])));
    let metrics = pool.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(metrics.contains("# EOF"), "{metrics}");
    let (status, error) = pool.request("GET", "/v1/guests/db", "");
    assert_eq!(status, 404);
    assert_eq!(
        error["error"],
        "the pool has no guest db; name one of its guests"
    );
}

#[test]
fn each_path_of_the_document_is_served_and_says_what_the_document_has() {
    let pool = TestService::start("document", Vec::new());
    let text = std::fs::read_to_string(document("openapi.json")).expect("the document");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        pool.request("GET", "/v1/openapi.json", ""),
        (200, document.clone())
    );
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 12, "{}", paths.len());
    for (path, methods) in paths.iter().filter(|(path, _)| *path != "/v1/events") {
        for (method, described) in methods.as_object().expect("methods") {
            let (status, body) =
                pool.request(&method.to_uppercase(), &path.replace("{name}", "db"), "");
            assert!(
                described["responses"].get(status.to_string()).is_some(),
                "{method} {path}: {status}"
            );
            // No guest is there, so each request for one fails, and says so, and so does a change without a body.
            let fails = path.contains("{name}") || path.contains("/cpus/");
            assert_eq!(body["error"].is_string(), fails, "{method} {path}: {body}");
        }
        let (status, body) = pool.request("PUT", &path.replace("{name}", "db"), "");
        assert_eq!((status, body["error"].is_string()), (405, true), "{path}");
    }
}

#[test]
fn a_guest_is_paused_resumed_changed_and_taken_out() {
    let pool = TestService::start("guest", Vec::new());
    let client = pool.client();
    pool.join_own(config("db", 2));
    let guest = client.guest("db").expect("it is there");
    assert_eq!(
        (guest.state, guest.vcpus.len(), guest.pid),
        (GuestState::Running, 2, None)
    );
    client.order("db", "pause").expect("it runs");
    assert_eq!(client.guest("db").expect("there").state, GuestState::Paused);
    let twice = client
        .order("db", "pause")
        .expect_err("it is paused")
        .to_string();
    assert_eq!(twice, "guest db is paused already; resume it first");
    client.order("db", "resume").expect("it is paused");

    let change = |vcpu, reservation: Option<&str>, weight| GuestChange {
        vcpu,
        reservation: reservation.map(|text| ReservationText::Text(text.to_owned())),
        weight,
        host_cpus: None,
    };
    let guest = client
        .change("db", &change(Some(1), Some("5ms/10ms"), None))
        .expect("it fits");
    assert_eq!(guest.vcpus[1].reservation.as_deref(), Some("5ms/10ms,hard"));
    assert_eq!(
        (guest.reserved_cpus, guest.vcpus[0].weight),
        (0.5, Some(100))
    );
    // The weight is for those without a reservation.
    let guest = client
        .change("db", &change(None, None, Some(200)))
        .expect("it fits");
    assert_eq!(
        (guest.vcpus[0].weight, guest.vcpus[1].weight),
        (Some(200), None)
    );
    // vCPU 0 fits, vCPU 1 does not, and none has changed.
    pool.join_own(config("two", 2));
    let too_much = client.change("two", &change(None, Some("3ms/10ms"), None));
    let too_much = too_much.expect_err("it does not fit").to_string();
    assert!(too_much.contains("guest two, vCPU 1"), "{too_much}");
    let two = client.guest("two").expect("there");
    assert_eq!(two.vcpus[0].weight, Some(100));
    let (status, body) = pool.request(
        "PATCH",
        "/v1/guests/db",
        r#"{"vcpu":0,"reservation":"9ms/10ms"}"#,
    );
    assert_eq!(status, 409);
    assert!(
        body["would_fit"]
            .as_str()
            .is_some_and(|fits| fits.contains("budget of at most")),
        "{body}"
    );

    for order in ["power-button", "power-off", "reset"] {
        let refused = client
            .order("db", order)
            .expect_err("it has no process")
            .to_string();
        assert!(refused.contains("the pool's own process"), "{refused}");
    }
    client.kill("db").expect("it goes");
    assert!(client.guest("db").expect_err("it is gone").is_missing());
}

#[test]
fn the_pool_gets_and_gives_up_host_cpus_by_request_of_root() {
    let all = baton_os::sys::affinity().expect("the affinity of this process");
    let &[first, second, ..] = &all[..] else {
        eprintln!("this host has one CPU, so nothing is tested");
        return;
    };
    let terms = GrantTerms::default();
    let pool = TestService::start("host-cpus", vec![(Grantee::User(NOBODY), terms)]);
    let client = pool.client();
    let cpus = |status: &baton_api::PoolStatus| -> Vec<usize> {
        status.host_cpus.iter().map(|cpu| cpu.cpu).collect()
    };
    let added = client.change_cpus("add", &second.to_string());
    assert_eq!(cpus(&added.expect("it is free")), [first, second]);
    pool.join_own(config("db", 2));
    let refused = client.change_cpus("remove", &format!("{first},{second}"));
    let refused = refused.expect_err("one has to stay").to_string();
    assert!(refused.contains("is the last one of the pool"), "{refused}");
    assert_eq!(cpus(&client.pool().expect("there")), [first, second]);
    let removed = client.change_cpus("remove", &first.to_string());
    assert_eq!(cpus(&removed.expect("nothing needs it")), [second]);
    let body = format!(r#"{{"host_cpus": "{first}"}}"#);
    let path = "/v1/pool/cpus/remove";
    assert_eq!(pool.request("POST", path, &body).0, 422);
    let body = r#"{"host_cpus": "x"}"#;
    assert_eq!(pool.request("POST", path, body).0, 422);
    assert_eq!(pool.request("POST", path, "{}").0, 422);
    let sockets = &*pool;
    let body = format!(r#"{{"host_cpus": "{first}"}}"#);
    let denied = as_user(NOBODY, || {
        sockets.request("POST", "/v1/pool/cpus/add", &body).0
    });
    assert!(denied.is_none_or(|status| status == 403), "{denied:?}");
}

#[test]
fn events_come_in_order_to_each_client_that_follows() {
    let pool = TestService::start("events", Vec::new());
    pool.join_own(config("db", 1));
    let mut followers: Vec<_> = (0..2).map(|_| pool.connect()).collect();
    let mut heads = Vec::new();
    for follower in &mut followers {
        follower
            .write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            follower.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        heads.push(head);
    }
    let client = pool.client();
    client.order("db", "pause").expect("it runs");
    client.order("db", "resume").expect("it is paused");
    client.kill("db").expect("it goes");
    for mut follower in followers {
        let mut text = String::new();
        while text.matches("\"event\"").count() < 3 {
            let mut part = [0; 512];
            let length = follower.read(&mut part).expect("more");
            assert!(length > 0, "{text}");
            text += &String::from_utf8_lossy(&part[..length]);
        }
        let at = |word: &str| {
            text.find(word)
                .unwrap_or_else(|| panic!("{word} in {text}"))
        };
        assert!(
            at("\"paused\"") < at("\"resumed\"") && at("\"resumed\"") < at("\"kill\""),
            "{text}"
        );
    }
}

#[test]
fn a_client_of_the_commands_follows_events_until_it_has_enough() {
    let pool = TestService::start("follow", Vec::new());
    pool.join_own(config("db", 1));
    let client = pool.client();
    std::thread::scope(|scope| {
        let follower = pool.client();
        let follow = scope.spawn(move || {
            let mut seen = Vec::new();
            let followed = follower.follow(|event, _| {
                seen.push(event.kind.clone());
                false
            });
            followed.map(|()| seen)
        });
        // Until the follower has connected, nobody sees these.
        while !follow.is_finished() {
            client.order("db", "pause").expect("it runs");
            client.order("db", "resume").expect("it is paused");
        }
        let seen = follow.join().expect("no panic").expect("events");
        assert!(
            matches!(&seen[0], EventKind::Paused { guest } | EventKind::Resumed { guest } if guest == "db")
        );
    });
}

#[test]
fn a_user_sees_nothing_without_a_grant_and_changes_only_his_own_with_one() {
    let grant = |uid| {
        let terms = GrantTerms {
            max_reservation: Some(200_000),
            max_guests: Some(1),
            ..GrantTerms::default()
        };
        vec![(Grantee::User(uid), terms)]
    };
    let service = TestService::start("rights", grant(NOBODY));
    service.join_own(config("roots", 1));
    let pool = &*service;
    let stranger = as_user(NOBODY - 1, || {
        [
            "/v1/pool",
            "/v1/guests",
            "/v1/guests/roots",
            "/v1/events",
            "/snapshot",
            "/metrics",
        ]
        .map(|path| pool.request("GET", path, "").0)
    });
    let Some(stranger) = stranger else {
        eprintln!("not root: skipped");
        return;
    };
    assert_eq!(stranger, [403; 6]);
    as_user(NOBODY - 1, || {
        // Not even whether there is such a guest.
        for name in ["roots", "none"] {
            assert_eq!(
                pool.request("DELETE", &format!("/v1/guests/{name}"), "").0,
                403
            );
        }
        assert!(pool.join(join_request("theirs", None)).is_err());
    });
    as_user(NOBODY, || {
        assert_eq!(pool.request("GET", "/v1/guests/roots", "").0, 200);
        assert_eq!(pool.request("DELETE", "/v1/guests/roots", "").0, 403);
        assert_eq!(pool.request("POST", "/v1/guests/roots/pause", "").0, 403);
        let (_, you) = pool.request("GET", "/v1/pool", "");
        assert_eq!(you["you"]["grant"]["max_reservation"], json!(0.2));
        let too_much = pool.join(join_request("own", Some("3ms/10ms")));
        let too_much = too_much.expect_err("above the grant").to_string();
        assert!(
            too_much.contains("0.20 CPUs at most, and this makes 0.30"),
            "{too_much}"
        );
        let (_own, _) = pool
            .join(join_request("own", Some("2ms/10ms")))
            .expect("within the grant");
        let second = pool
            .join(join_request("second", None))
            .expect_err("one guest")
            .to_string();
        assert!(second.contains("1 guests at most"), "{second}");
        let set = |body| pool.request("PATCH", "/v1/guests/own", body).0;
        assert_eq!(set(r#"{"reservation":"1ms/10ms"}"#), 200);
        assert_eq!(set(r#"{"reservation":"3ms/10ms"}"#), 403);
        assert_eq!(pool.request("POST", "/v1/guests/own/pause", "").0, 204);
        // Root may change it beyond the grant of its owner.
        drop(_own);
    });
    until("it leaves with its process", || {
        pool.request("GET", "/v1/guests/own", "").0 == 404
    });
}

#[test]
fn requests_that_are_malformed_or_too_long_are_refused_with_a_sentence_and_the_server_goes_on() {
    let pool = TestService::start("malformed", Vec::new());
    pool.join_own(config("db", 1));
    for (body, expected) in [
        ("", 400),
        ("{", 400),
        ("[]", 422),
        ("{}", 422),
        (r#"{"weight":0}"#, 422),
        (r#"{"weight":1e99}"#, 422),
        (r#"{"vcpu":7,"weight":5}"#, 422),
        (r#"{"host_cpus":"9999999"}"#, 422),
        (r#"{"host_cpus":"4000"}"#, 422),
        (r#"{"reservation":"5ms"}"#, 422),
        (
            r#"{"reservation":{"budget":"5ms","period":"10ms","x":1}}"#,
            422,
        ),
        (&format!(r#"{{"host_cpus":"{}"}}"#, "1".repeat(20_000)), 413),
    ] {
        let (status, error) = pool.request("PATCH", "/v1/guests/db", body);
        assert_eq!(
            (status, error["error"].is_string()),
            (expected, true),
            "{body}: {error}"
        );
    }
    let other = b"PATCH /v1/guests/db HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(answer(&pool.raw(other)).0, 415);
    assert_eq!(pool.request("GET", "/v1/guests/%ff", "").0, 400);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "a: b\r\n".repeat(1000)
    );
    for bytes in [
        &b"\0\xff\r\n\r\n"[..],
        b"GET\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        let status = answer(&pool.raw(bytes)).0;
        assert!([0, 400, 431].contains(&status), "{status}");
    }
    let (status, error) = pool.request("GET", "/nothing", "");
    assert_eq!((status, error["error"].is_string()), (404, true));
    assert_eq!(pool.request("GET", "/v1/pool", "").0, 200);
}

#[test]
fn clients_that_send_nothing_read_nothing_or_come_in_masses_keep_no_other_waiting() {
    let service = TestService::start("slow", Vec::new());
    let pool = &*service;
    let silent: Option<Vec<_>> =
        as_user(NOBODY, || {
            (0..200)
                .map(|number| {
                    let mut stream = pool.connect();
                    match number % 3 {
                        0 => {}
                        1 => drop(stream.write_all(
                            b"PATCH /v1/guests/db HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
                        )),
                        _ => drop(stream.write_all(b"GET /v1/pool HTTP/1.1\r\nHo")),
                    }
                    stream
                })
                .collect()
        });
    for _ in 0..50 {
        assert_eq!(pool.request("GET", "/v1/pool", "").0, 200);
    }
    // Those that are over the bound are closed at once, and the others when their time is over.
    for mut stream in silent.into_iter().flatten() {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let status = answer(&String::from_utf8_lossy(&all)).0;
        assert!([0, 403, 404, 408].contains(&status), "{status}");
    }
}
