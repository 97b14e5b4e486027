//! A taker that sleeps while there is something to take never wakes, which loom reports as a deadlock.

use super::*;

#[test]
fn loom_every_value_reaches_the_taker_and_none_does_after_closing() {
    loom::model(|| {
        let handoff = Handoff::new();
        let taker = thread::spawn({
            let handoff = handoff.clone();
            move || (handoff.take(), handoff.take())
        });
        assert_eq!(handoff.put(1), Ok(()));
        handoff.close();
        assert_eq!(handoff.put(2), Err(2));
        assert_eq!(taker.join().unwrap(), (Some(1), None));
    });
}

#[test]
fn loom_an_answer_reaches_the_executor_that_waits_for_it() {
    loom::model(|| {
        let (request, answer) = (Handoff::new(), Handoff::new());
        let vcpu_thread = thread::spawn({
            let (request, answer) = (request.clone(), answer.clone());
            move || {
                while let Some(value) = request.take() {
                    assert_eq!(answer.put(value + 1), Ok(()));
                }
            }
        });
        for value in [1, 5] {
            assert_eq!(request.put(value), Ok(()));
            assert_eq!(answer.take(), Some(value + 1));
        }
        request.close();
        vcpu_thread.join().unwrap();
    });
}

#[test]
fn loom_a_wake_for_another_reason_loses_no_value() {
    loom::model(|| {
        let handoff = Handoff::new();
        let taker = thread::spawn({
            let handoff = handoff.clone();
            move || handoff.take()
        });
        // A kick unparks the thread, too.
        taker.thread().unpark();
        assert_eq!(handoff.put(1), Ok(()));
        assert_eq!(taker.join().unwrap(), Some(1));
    });
}
