//! Counts tripwire hits per source, for bans. Bounded: a full table evicts the source with the
//! fewest hits, among equals the one that was quiet longest.
#![forbid(unsafe_code)]

use crate::knock::tripwire::BanRule;
use crate::limits::{HIT_BUCKETS, MAX_HITS, SOURCES_PER_BUCKET};
use crate::util::time::Millis;
use std::net::IpAddr;

struct Source {
    address: IpAddr,
    /// Port and time of each hit, the oldest first. Each port counts once, because a client that
    /// retries one port is not a scanner.
    hits: heapless::Vec<(u16, Millis), MAX_HITS>,
}

/// The hits of all sources.
pub(super) struct Hits {
    rule: BanRule,
    /// One list for each number of hits. The first source of each was quiet longest.
    buckets: Vec<Vec<Source>>,
}

impl Hits {
    pub fn new(rule: BanRule) -> Hits {
        Hits {
            rule,
            buckets: (0..HIT_BUCKETS).map(|_| Vec::new()).collect(),
        }
    }

    /// Counts one hit. `hash` is that of the source, with a random key. Returns whether the source
    /// has reached the number of hits for a ban.
    pub fn add(&mut self, hash: u16, address: IpAddr, port: u16, now: Millis) -> bool {
        let BanRule {
            hits: needed,
            window,
        } = self.rule;
        let bucket = &mut self.buckets[usize::from(hash) % HIT_BUCKETS];
        bucket.retain_mut(|source| {
            let hits = &mut source.hits;
            let again = source.address == address;
            hits.retain(|(other, time)| {
                now.saturating_sub(*time) < window && !(again && *other == port)
            });
            !hits.is_empty()
        });
        let found = bucket.iter().position(|source| source.address == address);
        if found.is_none() && bucket.len() == SOURCES_PER_BUCKET {
            let least = (0..bucket.len()).min_by_key(|index| bucket[*index].hits.len());
            bucket.remove(least.unwrap_or(0));
        }
        let new = Source {
            address,
            hits: heapless::Vec::new(),
        };
        let mut source = found.map_or(new, |index| bucket.remove(index));
        let hits = &mut source.hits;
        if hits.len() == usize::from(needed) {
            hits.remove(0);
        }
        // Never full: `needed` is at most MAX_HITS.
        let _ = hits.push((port, now));
        let bans = hits.len() == usize::from(needed);
        bucket.push(source);
        bans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BanRule = BanRule {
        hits: 3,
        window: 1_000,
    };

    fn source(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    /// Hits of one source at these ports and times.
    fn add_all(hits: &mut Hits, number: u32, all: &[(u16, Millis)]) -> Vec<bool> {
        all.iter()
            .map(|(port, now)| hits.add(0, source(number), *port, *now))
            .collect()
    }

    #[test]
    fn the_third_port_within_the_window_bans_and_so_does_each_one_more() {
        let mut hits = Hits::new(RULE);
        let found = add_all(&mut hits, 1, &[(1, 0), (2, 400), (3, 999), (4, 1_000)]);
        assert_eq!(found, [false, false, true, true]);
        let found = add_all(&mut hits, 2, &[(1, 0), (2, 400), (3, 1_000), (4, 1_399)]);
        assert_eq!(found, [false, false, false, true], "the first is too old");
    }

    #[test]
    fn one_port_again_and_again_is_one_hit() {
        let mut hits = Hits::new(RULE);
        let all = [(1, 0), (2, 1), (1, 2), (2, 3), (1, 4), (3, 5)];
        assert_eq!(
            add_all(&mut hits, 1, &all),
            [false, false, false, false, false, true]
        );
    }

    #[test]
    fn who_comes_back_is_banned_again() {
        let mut hits = Hits::new(RULE);
        for round in 0..3 {
            let all = [1, 2, 3].map(|port| (port, round * 600 + u64::from(port)));
            let bans = add_all(&mut hits, 1, &all).contains(&true);
            assert!(bans, "round {round}");
        }
    }

    #[test]
    fn who_has_been_quiet_for_long_keeps_nobody_out() {
        let mut hits = Hits::new(RULE);
        for number in 0..SOURCES_PER_BUCKET as u32 {
            add_all(&mut hits, number, &[(1, 0), (2, 0), (3, 0)]);
        }
        let mut banned = [false; 2];
        for port in 1..4 {
            for number in [0, 1] {
                let now = 1_000 + u64::from(port);
                banned[number as usize] = hits.add(0, source(100 + number), port, now);
            }
        }
        assert_eq!(banned, [true; 2]);
    }

    #[test]
    fn of_too_many_sources_those_with_one_old_hit_go() {
        let mut hits = Hits::new(RULE);
        add_all(&mut hits, 0, &[(1, 0), (2, 0)]);
        for number in 1..1_000 {
            assert_eq!(add_all(&mut hits, number, &[(1, 1)]), [false]);
        }
        let sources: usize = hits.buckets.iter().map(Vec::len).sum();
        assert_eq!(sources, SOURCES_PER_BUCKET);
        assert_eq!(add_all(&mut hits, 0, &[(3, 2)]), [true], "it was kept");
    }
}
