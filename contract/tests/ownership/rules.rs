//! What a writer keeps to.

/// What a writer keeps to. Without either of them the model must find what goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Writes name the version that they replace.
    pub(crate) conditional: bool,
    /// A text that reaches less far does not replace an older owner's.
    pub(crate) reach: bool,
    /// What the origin has of others is taken over.
    pub(crate) inherits: bool,
    /// What the origin had first stays there.
    pub(crate) first_stays: bool,
    /// What an owner does to its head it does to the head that is there.
    pub(crate) takes_up: bool,
    /// Who lets go of what is not stored says so, and who follows asks the origin then, as after a death.
    pub(crate) tells: bool,
    /// A run that has ended is nobody's to take.
    pub(crate) stays_ended: bool,
    /// It ends once all of it is named.
    pub(crate) ends_last: bool,
    /// Who has been replaced puts no segment into S3 any more.
    pub(crate) fenced: bool,
    /// Where he does, that one segment may be another than was shown.
    pub(crate) excused: bool,
}

pub(crate) const ALL: Rules = Rules {
    conditional: true,
    reach: true,
    inherits: true,
    first_stays: true,
    takes_up: true,
    tells: true,
    stays_ended: true,
    ends_last: true,
    fenced: true,
    excused: false,
};
