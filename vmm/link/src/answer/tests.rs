use baton_machine::hints::PublishedWait;
use proptest::prelude::*;
use vcpu_sched::WaitKind;

use super::*;

/// vCPU 1 of four.
const PLACE: VcpuIndex = VcpuIndex { index: 1, of: 4 };

fn hints() -> impl Strategy<Value = HintSnapshot> {
    let kind = prop_oneof![Just(WaitKind::Spin), Just(WaitKind::Block)];
    let holder = prop_oneof![Just(0_u32), Just(2), Just(3)];
    let count = 0..1_u32 << 24;
    let wait = (kind, any::<u64>(), holder, count.clone());
    let wait = wait.prop_map(|(kind, lock, holder, holder_releases)| PublishedWait {
        kind,
        lock,
        holder,
        holder_releases,
    });
    let fields = (
        0..256_u32,
        count,
        proptest::option::of(wait),
        any::<bool>(),
        any::<bool>(),
    );
    fields.prop_map(|(depth, releases, wait, waits, is_guess)| HintSnapshot {
        depth,
        releases,
        wait,
        waits,
        is_guess,
    })
}

fn doorbell() -> impl Strategy<Value = Doorbell> {
    prop_oneof![
        Just(Doorbell::Wait),
        Just(Doorbell::Idle),
        proptest::option::of(0..4_u32).prop_map(|to| Doorbell::Release { to }),
        (0..4_u32).prop_map(|target| Doorbell::Wake { target }),
    ]
}

fn answer_to_run() -> impl Strategy<Value = Answer> {
    let payload = proptest::option::of(1..u64::MAX);
    let rang = (doorbell(), payload, hints()).prop_map(|(doorbell, payload, hints)| Rang {
        doorbell,
        payload,
        hints,
    });
    prop_oneof![
        hints().prop_map(Answer::Preempted),
        hints().prop_map(Answer::Halted),
        rang.prop_map(Answer::Rang),
        Just(Answer::Ended),
    ]
}

proptest! {
    #[test]
    fn an_answer_is_read_as_it_was_written(answer in answer_to_run()) {
        let words = AnswerWords::default();
        answer.write(&words);
        prop_assert_eq!(Answer::read(&words, CommandKind::Run, PLACE), Ok(answer));
    }

    #[test]
    fn whatever_stands_in_the_page_the_answer_names_existing_vcpus_or_is_refused(
        answer in answer_to_run(),
        word in 0..8_usize,
        value in prop_oneof![0..16_u32, any::<u32>()],
        command in prop_oneof![Just(CommandKind::Run), Just(CommandKind::Sleep), Just(CommandKind::Stop)],
    ) {
        let words = AnswerWords::default();
        answer.write(&words);
        let all = [
            &words.reason, &words.doorbell, &words.depth, &words.releases, &words.hint_flags,
            &words.holder, &words.holder_releases,
        ];
        if let Some(word) = all.get(word) {
            word.store(value, Relaxed);
        }
        let hints = match Answer::read(&words, command, PLACE) {
            Ok(Answer::Preempted(hints) | Answer::Halted(hints)) => hints,
            Ok(Answer::Rang(rang)) => {
                let named = match rang.doorbell {
                    Doorbell::Release { to } => to,
                    Doorbell::Wake { target } => Some(target),
                    Doorbell::Wait | Doorbell::Idle => None,
                };
                prop_assert!(named.is_none_or(|index| index < PLACE.of));
                rang.hints
            }
            Ok(Answer::Woken) => {
                prop_assert_eq!(command, CommandKind::Sleep);
                return Ok(());
            }
            Ok(Answer::Ended) | Err(_) => return Ok(()),
        };
        prop_assert_eq!(command, CommandKind::Run);
        prop_assert!(hints.depth < 256 && hints.releases < 1 << 24);
        let is_wrong = |wait: PublishedWait| wait.holder >= PLACE.of || wait.holder == PLACE.index;
        prop_assert!(!hints.wait.is_some_and(is_wrong));
    }
}

#[test]
fn each_reason_ends_only_the_commands_that_it_can_end() {
    use CommandKind::{Run, Sleep, Stop};
    let words = AnswerWords::default();
    for (reason, ends) in [
        (PREEMPTED, vec![Run]),
        (HALTED, vec![Run]),
        (WOKEN, vec![Sleep]),
        (ENDED, vec![Run, Sleep, Stop]),
    ] {
        words.reason.store(reason, Relaxed);
        for command in [Run, Sleep, Stop] {
            let read = Answer::read(&words, command, PLACE);
            let error = AnswerError::NotOfCommand { reason, command };
            assert_eq!(read.is_ok(), ends.contains(&command));
            assert!(read.is_ok() || read == Err(error));
        }
    }
    words.reason.store(0, Relaxed);
    assert_eq!(
        Answer::read(&words, Run, PLACE),
        Err(AnswerError::Reason(0))
    );
}

#[test]
fn a_vcpu_that_waits_for_itself_is_refused() {
    let words = AnswerWords::default();
    let wait = PublishedWait {
        kind: WaitKind::Spin,
        lock: 7,
        holder: PLACE.index,
        holder_releases: 0,
    };
    let hints = HintSnapshot {
        wait: Some(wait),
        ..HintSnapshot::default()
    };
    Answer::Preempted(hints).write(&words);
    let error = HintError::Holder {
        waiter: 1,
        holder: 1,
        vcpus: 4,
    };
    let read = Answer::read(&words, CommandKind::Run, PLACE);
    assert_eq!(read, Err(AnswerError::Hints(error)));
}
