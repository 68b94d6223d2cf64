//! Deliberate bugs, to see that the simulator catches them: `make sim-mutants`.
//!
//! Without the feature `mutants`, which only that test turns on, [`mutant`] is the constant `false`, and what
//! it guards is compiled to nothing.

#[cfg(feature = "mutants")]
thread_local! {
    static IN_FORCE: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Is this bug in force on this thread?
#[cfg(feature = "mutants")]
pub fn mutant(name: &str) -> bool {
    IN_FORCE.get() == name
}

/// Is this bug in force on this thread? It never is.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn mutant(_name: &str) -> bool {
    false
}

/// Puts a bug in force on this thread, or none (`""`).
#[cfg(feature = "mutants")]
pub fn set_mutant(name: &'static str) {
    IN_FORCE.set(name);
}
