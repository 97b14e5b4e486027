//! Where the hints of a guest come from at the moment.

use std::fmt;

use crate::hints::HintPages;
use crate::inferred::{InferredHints, Progress};

/// Where the hints of a guest come from at the moment: what has become of the configured source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HintsInForce {
    /// There are none.
    #[default]
    Off,
    /// The guest may publish them, and no vCPU has registered a page.
    NoPage,
    /// At least one vCPU publishes them in its page.
    Page,
    /// The host infers of them what can be inferred of any guest.
    AnyGuest,
    /// The host is to infer them, and still looks for the preempt count of the guest's kernel.
    Looking,
    /// The host infers them from the preempt count of the guest's kernel.
    PreemptCount,
    /// The host was to infer them, and has found no preempt count.
    NoCount,
}

impl HintsInForce {
    /// The source of a guest with these pages, and of which these hints are inferred.
    pub(super) fn of(pages: &HintPages, inferred: &InferredHints) -> Self {
        if pages.is_any_registered() {
            return Self::Page;
        }
        match inferred.progress() {
            Some(Progress::NoSearch) => Self::AnyGuest,
            Some(Progress::Looking) => Self::Looking,
            Some(Progress::Found) => Self::PreemptCount,
            Some(Progress::NotFound) => Self::NoCount,
            None if pages.are_offered() => Self::NoPage,
            None => Self::Off,
        }
    }
}

impl HintsInForce {
    const ALL: [Self; 6] = [
        Self::Off,
        Self::NoPage,
        Self::Page,
        Self::Looking,
        Self::PreemptCount,
        Self::NoCount,
    ];

    /// The source that is shown as `text`, as another process of Baton reports it.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.text() == text)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoPage => "page (none registered)",
            Self::Page => "page",
            Self::AnyGuest => "inferred (any guest)",
            Self::Looking => "inferred (looking for the count)",
            Self::PreemptCount => "inferred (preempt count)",
            Self::NoCount => "inferred (no count found)",
        }
    }
}

impl fmt::Display for HintsInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inferred::{Finding, ScanRequest, Scanned, ScannedGuest};
    use crate::memory::GuestMemory;

    /// A guest that has ended: its scanner ends at once.
    struct Ended;

    impl ScannedGuest for Ended {
        fn read(&self, _: u64, _: &mut [u8]) -> Option<usize> {
            None
        }

        fn finished(&self, _: Scanned) {}
    }

    const REQUEST: ScanRequest = ScanRequest {
        address: 0,
        physical: 0,
    };

    #[test]
    fn each_source_is_read_as_it_is_shown() {
        for source in HintsInForce::ALL {
            assert_eq!(HintsInForce::from_text(&source.to_string()), Some(source));
        }
        assert_eq!(HintsInForce::from_text(""), None);
    }

    #[test]
    fn without_inference_the_pages_decide() {
        let inferred = InferredHints::new(2);
        let off = HintsInForce::of(&HintPages::new(0), &inferred);
        assert_eq!(off.to_string(), "off");
        let (pages, memory) = (
            HintPages::new(2),
            GuestMemory::new(4 << 20).expect("memory"),
        );
        let none = HintsInForce::of(&pages, &inferred);
        assert_eq!(none.to_string(), "page (none registered)");
        pages.register(1, 9, memory.regions()).expect("in RAM");
        assert_eq!(HintsInForce::of(&pages, &inferred), HintsInForce::Page);
        pages.register(1, 0, memory.regions()).expect("ends it");
        assert_eq!(HintsInForce::of(&pages, &inferred), HintsInForce::NoPage);
    }

    #[test]
    fn of_hints_that_are_inferred_of_any_guest_no_count_is_looked_for() {
        let (pages, inferred) = (HintPages::new(0), InferredHints::new(1));
        inferred.start_without_scans();
        let any = HintsInForce::of(&pages, &inferred);
        assert_eq!(any.to_string(), "inferred (any guest)");
    }

    #[test]
    fn inferred_hints_are_looked_for_and_then_found_or_not_and_a_page_goes_before_them() {
        for (finding, expected) in [
            (Finding::Found(8), "inferred (preempt count)"),
            (Finding::NotFound, "inferred (no count found)"),
        ] {
            let (pages, inferred) = (HintPages::new(1), InferredHints::new(1));
            inferred.start(Ended).expect("a thread");
            let looking = HintsInForce::of(&pages, &inferred);
            assert_eq!(looking.to_string(), "inferred (looking for the count)");
            let scanned = Scanned {
                request: REQUEST,
                finding,
                witness: None,
            };
            while inferred.scanned(&scanned).is_none() {}
            let found = HintsInForce::of(&pages, &inferred);
            assert_eq!(found.to_string(), expected);
            let memory = GuestMemory::new(4 << 20).expect("memory");
            pages.register(0, 9, memory.regions()).expect("in RAM");
            assert_eq!(HintsInForce::of(&pages, &inferred), HintsInForce::Page);
        }
    }
}
