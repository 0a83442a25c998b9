//! Complete sequences, knocked one after the other, open exactly their doors, each at its last
//! knock and in order.

use crate::script::{Lab, door, host, knock, stranger};
use knockd_rs::knock::{Matching, Pattern, Protocol, Sequence, Step};
use knockd_rs::limits::{COPY_FACTOR, FIRST_COPY_MS, LAST_COPY_MS};
use knockd_rs::matcher::Event;
use knockd_rs::util::time::Millis;

/// One sequence for each door.
type Doors = Vec<Vec<Step>>;

/// Which door opens at which knock.
type Openings = Vec<(usize, usize)>;

/// The doors that each sequence opens on its own: its own door, and those whose sequence is a
/// prefix of it.
fn expected(doors: &Doors, words: &[usize]) -> Openings {
    let mut opens = Vec::new();
    let mut at = 0;
    for word in words {
        let steps = &doors[*word];
        for n in 1..=steps.len() {
            let whole = (0..doors.len()).filter(|door| doors[*door] == steps[..n]);
            opens.extend(whole.map(|door| (at + n - 1, door)));
        }
        at += steps.len();
    }
    opens
}

/// Whether the knocks are ambiguous: from the start of a word they also fit another door beyond the
/// end of that word, and then that door completes or another door opens in the meantime. It is then
/// undecidable which door was meant.
fn can_be_read_in_two_ways(doors: &Doors, words: &[usize]) -> bool {
    let opens = expected(doors, words);
    let knocks: Vec<Step> = words.iter().flat_map(|word| doors[*word].clone()).collect();
    let mut begin = 0;
    words.iter().any(|word| {
        let (start, end) = (begin, begin + doors[*word].len());
        begin = end;
        doors.iter().any(|steps| {
            let pairs = steps.iter().zip(&knocks[start..]);
            let fitting = pairs.take_while(|(step, knock)| step == knock).count();
            let reach = start + fitting;
            let opened_between = || opens.iter().any(|(at, _)| (end..reach).contains(at));
            reach > end && (fitting == steps.len() || opened_between())
        })
    })
}

/// A packet: when it arrives, and the index of its knock. Copies have the index of the original.
type Sent = (Millis, usize);

/// A matcher that plays one stream after the other. Each stream has its own source and starts when
/// the attempts of the previous one have timed out.
struct Player {
    lab: Lab,
    source: u32,
    longest: Millis,
}

impl Player {
    fn new(doors: &Doors, seq_timeout: Millis) -> Player {
        let pattern = |steps: &Vec<Step>| Pattern {
            sequence: Sequence::new(steps),
            ..door("1", seq_timeout)
        };
        let patterns: Vec<Pattern> = doors.iter().map(pattern).collect();
        Player {
            lab: Lab::new(&patterns, Matching::Tolerant),
            source: 0,
            longest: seq_timeout,
        }
    }

    fn play(&mut self, knocks: &[Step], packets: &[Sent]) -> Openings {
        let Player { lab, source, .. } = self;
        *source += 1;
        let start = lab.now;
        let mut opened = Vec::new();
        for (time, number) in packets {
            lab.now = start + time;
            lab.packet(
                &knock(stranger(*source), knocks[*number], 1 + *number as u32),
                true,
            );
            for event in lab.events.drain(..) {
                if let Event::Opened { door, .. } = event {
                    opened.push((*number, door.into()));
                }
            }
        }
        lab.now += self.longest + 100;
        opened
    }
}

/// All sequences of these lengths over these ports.
fn sequences(ports: u16, lengths: std::ops::RangeInclusive<u32>) -> Doors {
    let all =
        lengths.flat_map(|length| (0..u32::from(ports).pow(length)).map(move |n| (length, n)));
    all.map(|(length, number)| {
        let digit = |at: u32| (number / u32::from(ports).pow(at) % u32::from(ports)) as u16;
        (0..length).map(|at| tcp(1 + digit(at))).collect()
    })
    .collect()
}

fn tcp(port: u16) -> Step {
    Step {
        protocol: Protocol::Tcp,
        port,
    }
}

/// Whether the ports first appear in ascending order. This is true for exactly one of the door sets
/// that differ only in the numbering of the ports.
fn is_first_of_its_kind(doors: &Doors) -> bool {
    let mut highest = 0;
    doors.iter().flatten().all(|step| {
        let next = step.port <= highest + 1;
        highest = highest.max(step.port);
        next
    })
}

/// All lists of 1 to `most` words over these doors.
fn word_lists(doors: usize, most: u32) -> Vec<Vec<usize>> {
    let lists = (1..=most).flat_map(|n| (0..doors.pow(n)).map(move |list| (n, list)));
    lists
        .map(|(n, list)| (0..n).map(|at| list / doors.pow(at) % doors).collect())
        .collect()
}

/// All pairs of these sequences, ignoring the order within a pair and the numbering of the ports.
fn pairs(sequences: &Doors) -> Vec<Doors> {
    let indexes = (0..sequences.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let pairs = indexes.map(|(a, b)| vec![sequences[a].clone(), sequences[b].clone()]);
    pairs.filter(is_first_of_its_kind).collect()
}

/// Plays all lists of words at these doors: once as they are and, `with_copies`, once for each
/// later position at which a copy of a knock can arrive. Returns the number of streams played.
fn check(doors: &Doors, words: u32, with_copies: bool) -> usize {
    let mut player = Player::new(doors, 60_000);
    let mut played = 0;
    for words in word_lists(doors.len(), words) {
        if can_be_read_in_two_ways(doors, &words) {
            continue;
        }
        let expected = expected(doors, &words);
        let knocks: Vec<Step> = words.iter().flat_map(|word| doors[*word].clone()).collect();
        let clean: Vec<Sent> = (0..knocks.len())
            .map(|at| (100 * at as Millis, at))
            .collect();
        let last = if with_copies { knocks.len() } else { 1 };
        for (copied, place) in (0..last).flat_map(|a| (a..last).map(move |b| (a, b))) {
            let mut packets = clean.clone();
            if with_copies {
                packets.insert(place + 1, (packets[place].0 + 50, copied));
            }
            let opened = player.play(&knocks, &packets);
            assert_eq!(opened, expected, "{doors:?} {words:?} {packets:?}");
            played += 1;
        }
    }
    played
}

#[test]
fn all_pairs_of_doors_over_three_ports_are_exact() {
    let sequences = sequences(3, 2..=4);
    let mut played = 0;
    for pair in pairs(&sequences) {
        let turned: Doors = pair.iter().rev().cloned().collect();
        played += check(&pair, 4, false) + check(&turned, 4, false);
    }
    assert!(played > 60_000, "{played}");
}

#[test]
fn all_pairs_with_one_copy_at_every_place_are_exact() {
    let sequences = sequences(3, 2..=4);
    let played: usize = pairs(&sequences)
        .iter()
        .map(|pair| check(pair, 4, true))
        .sum();
    assert!(played > 2_000_000, "{played}");
}

#[test]
fn all_pairs_with_doors_of_one_step_are_exact() {
    let sequences = sequences(3, 1..=4);
    let played: usize = pairs(&sequences)
        .iter()
        .map(|pair| check(pair, 4, false))
        .sum();
    assert!(played > 30_000, "{played}");
}

#[test]
fn all_triples_of_short_doors_are_exact() {
    let sequences = sequences(3, 1..=2);
    let mut played = 0;
    for a in &sequences {
        for b in &sequences {
            for c in &sequences {
                let doors = vec![a.clone(), b.clone(), c.clone()];
                if a != b && b != c && a != c && is_first_of_its_kind(&doors) {
                    played += check(&doors, 3, false);
                }
            }
        }
    }
    assert!(played > 5_000, "{played}");
}

/// A pseudorandom number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn door(&mut self, others: &Doors) -> Vec<Step> {
        let other = (!others.is_empty()).then(|| others[self.below(others.len())].clone());
        let mut steps = match (other, self.below(6)) {
            (Some(mut steps), 0) => {
                steps.reverse();
                steps
            }
            (Some(mut steps), 1) => {
                let by = self.below(steps.len());
                steps.rotate_left(by);
                steps
            }
            (Some(steps), 2) => {
                let (a, b) = (self.below(steps.len()), self.below(steps.len()));
                steps[a.min(b)..=a.max(b)].to_vec()
            }
            (Some(mut steps), 3) => {
                steps.push(self.step());
                steps
            }
            _ => (0..=self.below(10)).map(|_| self.step()).collect(),
        };
        steps.truncate(10);
        steps
    }

    fn step(&mut self) -> Step {
        Step {
            protocol: [Protocol::Tcp, Protocol::Udp][usize::from(self.below(8) == 0)],
            port: 1 + self.below(5) as u16,
        }
    }

    /// When the copies of a packet arrive: as retransmissions, some of them lost, or immediately,
    /// as network duplicates.
    fn copies(&mut self) -> Vec<Millis> {
        let doubling = [1, 3, 7, 15, 31, 63];
        // Linux 6.5 and later.
        let linear = [1, 2, 3, 4, 5, 7];
        let old = [3, 9, 21, 45, 93, 189];
        let stack = [doubling, linear, old][self.below(3)];
        let number = self.below(stack.len() + 1);
        let mut copies: Vec<Millis> = match self.below(3) {
            0 => Vec::new(),
            1 => (0..=self.below(3))
                .map(|_| self.below(5) as Millis)
                .collect(),
            _ => stack[..number]
                .iter()
                .map(|s| s * 1_000 + self.below(40) as Millis)
                .collect(),
        };
        copies.sort_unstable();
        copies.retain(|_| self.below(6) > 0);
        let (mut last, mut pause) = (0, 0);
        copies.retain(|time| {
            let longest =
                (pause * u64::from(COPY_FACTOR)).clamp(FIRST_COPY_MS.into(), LAST_COPY_MS.into());
            let known = time - last <= longest;
            if known {
                (pause, last) = (pause.max(time - last), *time);
            }
            known
        });
        copies
    }
}

/// 2 to 6 doors that are parts, rotations, reversals and continuations of each other, up to 10
/// words, and copies as sent by TCP stacks and networks.
#[test]
fn random_doors_with_copies_of_every_kind_are_exact() {
    let mut random = Random(1);
    let (mut played, mut copied) = (0, 0);
    for _ in 0..100_000 {
        let mut doors = Doors::new();
        for _ in 0..2 + random.below(5) {
            let door = random.door(&doors);
            doors.push(door);
        }
        let words: Vec<usize> = (0..=random.below(10))
            .map(|_| random.below(doors.len()))
            .collect();
        if can_be_read_in_two_ways(&doors, &words) {
            continue;
        }
        let seq_timeout = 4_000 + random.below(21_000) as Millis;
        let knocks: Vec<Step> = words.iter().flat_map(|word| doors[*word].clone()).collect();
        let mut packets: Vec<Sent> = Vec::new();
        let (mut now, mut number) = (0, 0);
        for word in &words {
            let most = seq_timeout as usize / doors[*word].len();
            let gap = [0, 1, 100, most - 1][random.below(4)];
            for _ in &doors[*word] {
                packets.push((now, number));
                for copy in random.copies() {
                    packets.push((now + copy, number));
                    copied += 1;
                }
                now += random.below(gap + 1) as Millis;
                number += 1;
            }
            now += [0, 50, 3_000, 30_000][random.below(4)];
        }
        packets.sort_by_key(|packet| packet.0);
        let opened = Player::new(&doors, seq_timeout).play(&knocks, &packets);
        assert_eq!(
            opened,
            expected(&doors, &words),
            "{doors:?} {words:?} {packets:?}"
        );
        played += 1;
    }
    assert!(played > 80_000 && copied > 2_000_000, "{played} {copied}");
}

#[test]
fn what_can_be_read_in_two_ways_opens_the_longer_door() {
    let mut lab = Lab::new(
        &[door("1,2", 5_000), door("1,2,3", 5_000), door("3,4", 5_000)],
        Matching::Tolerant,
    );
    lab.knocks_from(host(2), "1 2 3 4");
    assert_eq!(lab.take_events(), "A1 B1 A2 A! B2 B3 B!");
}
