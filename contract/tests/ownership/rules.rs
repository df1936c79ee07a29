//! What owners keep to, and how much there is to go through.

/// What owners keep to.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The head is moved from the version that its owner knows.
    pub swaps: bool,
    /// What an owner does to its head it does to the head that is there.
    pub takes_up: bool,
    /// A segment is stored where there is none.
    pub stores_once: bool,
    /// A list takes the place of the version that its writer knows.
    pub conditional: bool,
    /// One that reaches less far does not replace an older owner's.
    pub reach: bool,
    /// A segment is stored before it is named.
    pub stored_first: bool,
    /// And named before the head passes it.
    pub named_first: bool,
    /// What the origin has of others is taken over.
    pub inherits: bool,
    /// What the origin had first stays there.
    pub first_stays: bool,
    /// Who stops lets go of the head.
    pub lets_go: bool,
    /// It says so where it has shown what is not stored, be it a part of a segment, and who follows asks the origin then, as after a death.
    pub tells_its_own: bool,
    /// The same of what somebody before has shown.
    pub tells_of_others: bool,
    /// A run that has ended is nobody's to take.
    pub stays_ended: bool,
    /// It ends once all of it is named.
    pub ends_last: bool,
    /// Who is asked for the run first makes what it has begun.
    pub to_the_boundary: bool,
    /// And moves the head there before it lets go.
    pub moves_on_first: bool,
    /// And then closes its successor's connection.
    pub closes: bool,
    /// A successor goes on where the head says, and not where its predecessor meant to let go.
    pub by_the_head: bool,

    /// A segment may be stored by somebody of whom no origin had it, and shown as another made it: nobody sees to that without the two rules below.
    pub excused: bool,
    /// An origin has what is pushed before that is stored: none is away, and no push is lost.
    pub shown_first: bool,
    /// Who has been replaced puts no segment into S3 any more. `transcoder-pod/src/supervise` sees to it by a clock; but who reaches S3, or whom the queue hears, goes on
    /// until it moves the head.
    pub fenced: bool,
    /// Nobody is taken for dead who lives.
    pub polite: bool,
}

/// What `transcoder-pod` and `origin-pod` keep to whatever happens.
pub const ALL: Rules = Rules {
    swaps: true,
    takes_up: true,
    stores_once: true,
    conditional: true,
    reach: true,
    stored_first: true,
    named_first: true,
    inherits: true,
    first_stays: true,
    lets_go: true,
    tells_its_own: true,
    tells_of_others: true,
    stays_ended: true,
    ends_last: true,
    to_the_boundary: true,
    moves_on_first: true,
    closes: true,
    by_the_head: true,
    excused: true,
    shown_first: false,
    fenced: false,
    polite: false,
};

/// Nothing is excused.
pub const STRICT: Rules = Rules { excused: false, shown_first: true, fenced: true, ..ALL };

/// Work that is planned: all is well, and the run moves.
pub const PLANNED: Rules = Rules { polite: true, ..STRICT };

/// How much there is to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// That the run has.
    pub segments: usize,
    /// That may come, one after the other.
    pub owners: u8,
    /// Answers, and connections, that may be lost.
    pub losses: u8,
    /// How often an owner may let go of its own accord.
    pub to_let_go: u8,
    /// How often one may be asked for the run.
    pub to_ask: u8,
}

/// Of a run of so many segments.
pub const fn size(segments: usize, owners: u8, losses: u8, to_let_go: u8, to_ask: u8) -> Size {
    Size { segments, owners, losses, to_let_go, to_ask }
}
