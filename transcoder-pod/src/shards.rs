//! Which shard to ask for a run. Pure.

use lectern_contract::job::LiveJob;

/// The shards that a feed is asked of: the owner that was last heard of, and whichever knows more once that one fails.
#[derive(Debug)]
pub(crate) struct Shards {
    /// `host:port` of the owner, as far as known.
    owner: String,
    /// `host:port` at which any shard answers.
    any: Option<String>,
    ask_any: bool,
    /// A move was followed at once, and nobody has served since: another is followed with the pauses of a failure, for two
    /// shards with different routes may send each other's readers back and forth.
    hopped: bool,
}

impl Shards {
    /// The job's.
    pub(crate) fn new(job: &LiveJob) -> Self {
        Self { owner: job.feed.clone(), any: job.any_feed.clone(), ask_any: false, hopped: false }
    }

    /// Whom to ask now: `host:port`.
    pub(crate) fn address(&self) -> &str {
        self.any.as_deref().filter(|_| self.ask_any).unwrap_or(&self.owner)
    }

    /// Whether that is another than the owner, which has failed: it may reach the owner where the feed does not.
    pub(crate) fn is_another(&self) -> bool {
        self.ask_any && self.any.is_some()
    }

    /// Whoever was asked does not serve: the next is asked.
    pub(crate) fn failed(&mut self) {
        self.ask_any = !self.ask_any;
    }

    /// Whoever was asked says that the run is at `owner`. True if that is worth asking at once.
    pub(crate) fn moved(&mut self, owner: &str) -> bool {
        let news = self.owner != owner;
        owner.clone_into(&mut self.owner);
        self.ask_any = false;
        let at_once = news && !self.hopped;
        self.hopped |= at_once;
        at_once
    }

    /// Whoever was asked serves.
    pub(crate) fn served(&mut self) {
        self.hopped = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(any: Option<&str>) -> Shards {
        Shards { owner: "a".into(), any: any.map(Into::into), ask_any: false, hopped: false }
    }

    #[test]
    fn an_owner_that_fails_and_any_shard_are_asked_by_turns() {
        let mut shards = shards(Some("any"));
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push((shards.address().to_owned(), shards.is_another()));
            shards.failed();
        }
        assert_eq!(asked, [("a".into(), false), ("any".into(), true), ("a".into(), false), ("any".into(), true)]);
    }

    #[test]
    fn without_any_shard_to_ask_the_owner_is_asked_again() {
        let mut shards = shards(None);
        shards.failed();
        assert_eq!((shards.address(), shards.is_another()), ("a", false));
    }

    #[test]
    fn a_move_is_followed_at_once_and_a_move_back_is_not() {
        let mut shards = shards(Some("any"));
        shards.failed();
        assert!(shards.moved("b"));
        assert_eq!(shards.address(), "b");
        assert!(!shards.moved("a"), "a says b, and b says a");
        assert_eq!(shards.address(), "a");
        shards.served();
        assert!(shards.moved("b"));
    }

    #[test]
    fn what_is_known_already_is_no_reason_to_hurry() {
        let mut shards = shards(Some("any"));
        shards.failed();
        assert!(!shards.moved("a"), "any shard names the owner that has just failed");
    }
}
