//! A breadth-first search through all states that a model can reach, each of them once.
//!
//! It is a search of our own, and not the crate stateright, for three reasons. A state is kept as the path that
//! leads to it and a hash of its normal form, so that tens of millions of them fit into memory: stateright keeps each
//! state of the frontier. A panic of the policy is a finding with a path, as the policy checks itself. And whether
//! CPUs kick each other for ever is a question about circles of certain steps, which stateright's properties do
//! not express.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is searched.
pub trait Model {
    type State: Clone;
    type Action: Copy + Display;

    /// Where the search begins.
    fn start(&self) -> Self::State;
    /// What can happen in this state.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;
    /// Carries out a step, and checks it.
    fn step(&self, state: &mut Self::State, action: Self::Action) -> Step;
    /// What must hold in a state.
    fn check(&self, state: &Self::State) -> Result<(), String>;
    /// Writes the normal form of a state.
    fn normal_form(&self, state: &Self::State, to: &mut impl Hasher);
}

/// What kind of step it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time went on, or somebody did something.
    Progress,
    /// Nobody did anything: what had to follow from earlier steps has followed. Such steps must come to an end.
    Consequence,
}

/// What was searched.
#[derive(Clone, Copy, Debug)]
pub struct Searched {
    /// Different states.
    pub states: usize,
    /// Steps that were carried out.
    pub steps: u64,
    /// All states that so many steps lead to have been checked.
    pub depth: u32,
    /// There are no others.
    pub is_complete: bool,
}

/// What is wrong, and the shortest way there.
#[derive(Debug)]
pub struct Finding {
    pub what: String,
    pub path: Vec<String>,
}

/// A hash is its own hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    /// Hashes of all states that were found. Among ten million states, the chance that two of them have one hash is
    /// 3 in a million.
    seen: HashSet<u64, BuildHasherDefault<Identity>>,
    /// For each state the one before it, and the step between them. The first state is the start.
    found: Vec<(u32, Option<M::Action>)>,
    /// The hash of each state that a consequence leads to or from, and where these lead.
    consequences: Vec<(u64, u64, u32)>,
    steps: u64,
}

/// Searches the states of `model`, until so many have been found.
///
/// # Errors
/// What is wrong in the first state that does not hold what it must, or a circle of consequences.
pub fn search<M: Model>(model: &M, most: usize) -> Result<Searched, Finding> {
    let start = model.start();
    let hash = hash_of(model, &start);
    let mut search = Search {
        model,
        seen: HashSet::default(),
        found: vec![(0, None)],
        consequences: Vec::new(),
        steps: 0,
    };
    search.seen.insert(hash);
    let check = guarded(|| model.check(&start));
    check.map_err(|what| search.finding(what, 0, None))?;
    let (mut depth, mut next) = (0, 0);
    while next < search.found.len() {
        let end = search.found.len();
        for index in next..end {
            if search.found.len() >= most {
                search.circles()?;
                return Ok(search.result(depth, false));
            }
            search.expand(index as u32)?;
        }
        (next, depth) = (end, depth + 1);
    }
    search.circles()?;
    Ok(search.result(depth, true))
}

fn hash_of<M: Model>(model: &M, state: &M::State) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.normal_form(state, &mut hasher);
    hasher.finish()
}

/// A panic is an error with its message.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(text.unwrap_or("a panic without a message").to_owned())
    })
}

impl<M: Model> Search<'_, M> {
    fn result(&self, depth: u32, is_complete: bool) -> Searched {
        Searched {
            states: self.found.len(),
            steps: self.steps,
            depth,
            is_complete,
        }
    }

    /// The steps that lead to a state.
    fn path(&self, mut index: u32) -> Vec<M::Action> {
        let mut path = Vec::new();
        while let (before, Some(action)) = self.found[index as usize] {
            path.push(action);
            index = before;
        }
        path.reverse();
        path
    }

    fn finding(&self, what: String, index: u32, last: Option<M::Action>) -> Finding {
        let path = self.path(index).into_iter().chain(last);
        Finding {
            what,
            path: path.map(|action| action.to_string()).collect(),
        }
    }

    fn state(&self, index: u32) -> M::State {
        let mut state = self.model.start();
        for action in self.path(index) {
            self.model.step(&mut state, action);
        }
        state
    }

    /// Carries out all steps from a state.
    fn expand(&mut self, index: u32) -> Result<(), Finding> {
        let from = self.state(index);
        let mut from_hash = None;
        for action in self.model.actions(&from) {
            self.steps += 1;
            let step = guarded(|| {
                let mut to = from.clone();
                let step = self.model.step(&mut to, action);
                self.model.check(&to)?;
                Ok((hash_of(self.model, &to), step))
            });
            let (hash, step) = step.map_err(|what| self.finding(what, index, Some(action)))?;
            if step == Step::Consequence {
                let from = *from_hash.get_or_insert_with(|| hash_of(self.model, &from));
                self.consequences.push((from, hash, index));
            }
            if self.seen.insert(hash) {
                self.found.push((index, Some(action)));
            }
        }
        Ok(())
    }

    /// Consequences that lead to consequences come to an end. Takes away, over and over, those that lead to a state
    /// from which none leads on; what is left are circles, and what leads to them.
    fn circles(&mut self) -> Result<(), Finding> {
        let mut left = std::mem::take(&mut self.consequences);
        loop {
            let origins: HashSet<u64, BuildHasherDefault<Identity>> =
                left.iter().map(|&(from, ..)| from).collect();
            let before = left.len();
            left.retain(|(_, to, _)| origins.contains(to));
            if left.len() == before {
                break;
            }
        }
        match left.iter().map(|&(_, _, index)| index).min() {
            None => Ok(()),
            Some(index) => {
                let what = "from here on, CPUs kick each other for ever".to_owned();
                Err(self.finding(what, index, None))
            }
        }
    }
}

/// Writes bytes into a hasher.
pub fn write(bytes: &[u8], to: &mut impl Hasher) {
    bytes.hash(to);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number below ten that goes up by one or two, and back to 0. If `circle`, that is a consequence.
    struct Counter {
        bad: u32,
        circle: bool,
    }

    impl Model for Counter {
        type State = u32;
        type Action = u32;

        fn start(&self) -> u32 {
            0
        }
        fn actions(&self, _: &u32) -> Vec<u32> {
            vec![1, 2]
        }
        fn step(&self, state: &mut u32, action: u32) -> Step {
            *state = (*state + action) % 10;
            match self.circle {
                true => Step::Consequence,
                false => Step::Progress,
            }
        }
        fn check(&self, state: &u32) -> Result<(), String> {
            assert_ne!(*state, self.bad, "bad");
            Ok(())
        }
        fn normal_form(&self, state: &u32, to: &mut impl Hasher) {
            write(&state.to_le_bytes(), to);
        }
    }

    #[test]
    fn all_states_are_found_once() {
        let counter = Counter {
            bad: 11,
            circle: false,
        };
        let searched = search(&counter, 1_000).unwrap();
        assert_eq!((searched.states, searched.steps), (10, 20));
        assert!(searched.is_complete);
        let searched = search(&counter, 5).unwrap();
        assert_eq!((searched.states, searched.depth), (5, 2));
        assert!(!searched.is_complete);
    }

    #[test]
    fn the_shortest_way_to_a_panic_is_found() {
        let counter = Counter {
            bad: 5,
            circle: false,
        };
        let finding = search(&counter, 1_000).unwrap_err();
        assert!(finding.what.contains("bad"), "{}", finding.what);
        assert_eq!(finding.path.len(), 3, "{:?}", finding.path);
    }

    #[test]
    fn consequences_that_come_back_are_found() {
        let counter = Counter {
            bad: 11,
            circle: true,
        };
        let finding = search(&counter, 1_000).unwrap_err();
        assert!(finding.what.contains("for ever"), "{}", finding.what);
    }
}
