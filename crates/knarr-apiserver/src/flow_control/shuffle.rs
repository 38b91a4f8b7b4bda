//! Shuffle sharding: a flow's few queues among many, so that one greedy flow rarely shares all of them with another.

use smallvec::SmallVec;

/// The queues of one flow, in the order dealt.
pub type Hand = SmallVec<[usize; 16]>;

/// Deals `hand` different cards of a deck of `deck`, determined by `hash` alone.
///
/// The hash is read as a number in the mixed base deck, deck-1, …: each digit picks one of the cards not dealt yet (KEP-1040).
pub fn deal(mut hash: u64, deck: usize, hand: usize) -> Hand {
    let mut dealt = Hand::new();
    let mut sorted = Hand::new();
    for left in (deck.saturating_sub(hand) + 1..=deck).rev() {
        let mut card = (hash % left as u64) as usize;
        hash /= left as u64;
        // The digit counts only what is left: step over everything smaller that is gone.
        let mut at = 0;
        while at < sorted.len() && card >= sorted[at] {
            card += 1;
            at += 1;
        }
        sorted.insert(at, card);
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hand_is_of_different_cards() {
        for hash in (0..2_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let hand = deal(hash, 64, 6);
            let mut sorted = hand.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.len() == 6 && sorted.iter().all(|c| *c < 64), "{hand:?}");
        }
    }

    #[test]
    fn every_hand_can_come_up() {
        let hands: std::collections::BTreeSet<Vec<usize>> = (0..4 * 3).map(|h| deal(h, 4, 2).to_vec()).collect();
        assert_eq!(hands.len(), 12, "each of the 4·3 hands once");
        assert_eq!(deal(5, 3, 9).len(), 3, "no more cards than the deck has");
    }
}
