//! Randomness that a failure can be repeated with, and how long tests take.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const FAULT_ROUNDS: u64 = 2;

/// The seed of this run, printed for a failure: `FLOTILLA_TEST_SEED` sets it.
pub fn seed() -> u64 {
    let seed = number_from_environment("FLOTILLA_TEST_SEED")
        .unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("FLOTILLA_TEST_SEED={seed}");
    seed
}

pub fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// Rounds of a crash test: 30, or `FLOTILLA_TEST_ROUNDS`.
pub fn rounds() -> u64 {
    number_from_environment("FLOTILLA_TEST_ROUNDS").unwrap_or(30)
}

/// Rounds of each fault of a cluster: 2, or `FLOTILLA_TEST_FAULT_ROUNDS`.
pub fn fault_rounds() -> u64 {
    number_from_environment("FLOTILLA_TEST_FAULT_ROUNDS").unwrap_or(FAULT_ROUNDS)
}

/// Whether more rounds are asked for than every run makes: then faults may also last longer.
pub fn is_torture() -> bool {
    fault_rounds() > FAULT_ROUNDS
}

/// How many times slower than usual the machine is, so that what is promised of usual ones can be held to
/// there: `FLOTILLA_TEST_SLOWNESS`, which `scripts/test-pace.py` sets.
fn slowness() -> u32 {
    let number = number_from_environment("FLOTILLA_TEST_SLOWNESS").unwrap_or(1);
    u32::try_from(number).unwrap_or(u32::MAX).max(1)
}

/// A time that is promised, or that others allow themselves, as it is on this machine.
pub fn stretched(usual: Duration) -> Duration {
    usual * slowness()
}

/// How long after something a kill comes: not a wait for anything, so any moment will do.
pub fn moment(random: &mut StdRng, ms_max: u64) -> Duration {
    Duration::from_millis(random.random_range(0..ms_max))
}

fn number_from_environment(key: &str) -> Option<u64> {
    let text = std::env::var(key).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{key} = {text:?} is not a number")),
    )
}
