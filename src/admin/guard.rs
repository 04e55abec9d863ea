//! The token: compared in constant time, and guessed slowly.
//!
//! Guessing is slowed by address. After a few wrong tokens an address has to wait, longer each time, and what it
//! sends meanwhile is refused unread, right or wrong: only so is there nothing to learn from asking faster. One
//! bound over all addresses would be simpler, but then anybody could lock the operator out by guessing. Behind a
//! proxy all clients have one address, unless it is among `trusted_proxies`.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::error::AdminError;

/// Wrong tokens before the first wait: room for a person's mistakes.
const FREE_FAILURES: u32 = 5;
/// Doubled by every further failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// After so long without a failure an address begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);
/// Addresses remembered; beyond it the one that has been quiet for longest is forgotten.
const MOST_PEERS: usize = 1024;

/// Who may come in.
pub(super) struct Guard {
    /// Of the token; tokens of any length are compared by hashes of one.
    hash: [u8; 32],
    guesses: Guesses,
}

/// Who has guessed wrong lately. Outlives a token: a reload is no reason to forget. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Guesses(Arc<Mutex<HashMap<IpAddr, Failures>>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn waits_until(self) -> Instant {
        let Some(beyond) = self.count.checked_sub(FREE_FAILURES) else {
            return self.last;
        };
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(beyond));
        self.last + wait.min(LONGEST_WAIT)
    }
}

impl Guard {
    pub(super) fn new(token: &SecretString, guesses: Guesses) -> Self {
        Self {
            // A header's value has no blanks at its ends.
            hash: hash(token.expose_secret().trim()),
            guesses,
        }
    }

    /// Lets whoever is at `peer` in with this token, or says why not.
    pub(super) fn admit(
        &self,
        peer: Option<IpAddr>,
        token: Option<&str>,
        now: Instant,
    ) -> Result<(), AdminError> {
        // Nothing was guessed, so nothing is counted.
        let token = token.ok_or(AdminError::NoToken)?;
        let peer = network(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        // Held for a few instructions, never across an await.
        let mut failures = self
            .guesses
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = failures
            .get(&peer)
            .copied()
            .filter(|known| now.duration_since(known.last) < FORGOTTEN_AFTER);
        if let Some(known) = known
            && now < known.waits_until()
        {
            return Err(AdminError::TooManyFailures(known.waits_until() - now));
        }
        if bool::from(hash(token).ct_eq(&self.hash)) {
            failures.remove(&peer);
            return Ok(());
        }
        let count = known.map_or(0, |known| known.count).saturating_add(1);
        if failures.len() >= MOST_PEERS && !failures.contains_key(&peer) {
            let quietest = failures.iter().min_by_key(|(_, failures)| failures.last);
            if let Some(quietest) = quietest.map(|(peer, _)| *peer) {
                failures.remove(&quietest);
            }
        }
        failures.insert(peer, Failures { count, last: now });
        tracing::warn!(%peer, failures = count, "a wrong admin token");
        Err(AdminError::WrongToken)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Guard")
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// What one subscriber has: an IPv4 address, or the /64 of an IPv6 one.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => {
            let prefix = ip.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "the right one";

    struct Door {
        guard: Guard,
        now: Instant,
    }

    impl Door {
        fn new() -> Self {
            Self {
                guard: Guard::new(&SecretString::from(RIGHT), Guesses::default()),
                now: Instant::now(),
            }
        }

        /// `in`, `wrong`, `none`, or how long to wait.
        fn knock(&self, peer: &str, token: Option<&str>) -> String {
            let peer = peer.parse().ok();
            match self.guard.admit(peer, token, self.now) {
                Ok(()) => "in".to_owned(),
                Err(AdminError::WrongToken) => "wrong".to_owned(),
                Err(AdminError::NoToken) => "none".to_owned(),
                Err(AdminError::TooManyFailures(wait)) => format!("{} s", wait.as_secs()),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let door = Door::new();
        for (token, expected) in [
            (Some(RIGHT), "in"),
            (None, "none"),
            (Some(""), "wrong"),
            (Some("the right on"), "wrong"),
            (Some("the right onE"), "wrong"),
            (Some("the right one "), "wrong"),
            (Some(RIGHT), "in"),
        ] {
            assert_eq!(door.knock("192.0.2.1", token), expected, "{token:?}");
        }
    }

    #[test]
    fn guessing_takes_ever_longer_and_hurts_nobody_else() {
        let mut door = Door::new();
        let guesser = "192.0.2.1";
        for _ in 0..FREE_FAILURES {
            assert_eq!(door.knock(guesser, Some("guess")), "wrong");
        }
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            // Nothing is told while it waits, not even to the right token.
            assert_eq!(door.knock(guesser, Some(RIGHT)), format!("{wait} s"));
            assert_eq!(door.knock("192.0.2.2", Some(RIGHT)), "in");
            door.now += Duration::from_secs(wait);
            assert_eq!(door.knock(guesser, Some("guess")), "wrong");
        }
        door.now += Duration::from_mins(1);
        assert_eq!(door.knock(guesser, Some(RIGHT)), "in");
        for _ in 0..FREE_FAILURES {
            assert_eq!(door.knock(guesser, Some("guess")), "wrong", "begun anew");
        }
        door.now += FORGOTTEN_AFTER;
        assert_eq!(door.knock(guesser, Some("guess")), "wrong");
        assert_eq!(door.knock(guesser, Some("guess")), "wrong", "forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_guesser() {
        let door = Door::new();
        for host in 0..FREE_FAILURES {
            let peer = format!("2001:db8:0:1::{host:x}");
            assert_eq!(door.knock(&peer, Some("guess")), "wrong");
        }
        assert_eq!(door.knock("2001:db8:0:1::ffff", Some("guess")), "1 s");
        assert_eq!(door.knock("2001:db8:0:2::1", Some("guess")), "wrong");
    }

    #[test]
    fn memory_is_bounded() {
        let door = Door::new();
        for number in 0..5000_u32 {
            let peer = Ipv4Addr::from_bits(number).to_string();
            door.knock(&peer, Some("guess"));
        }
        assert_eq!(door.guard.guesses.0.lock().unwrap().len(), MOST_PEERS);
    }
}
