//! Whom an incident of the watch is about: a key or a caller. Episodes are kept by detector and
//! subject.

use crate::id::KeyRef;
use crate::trail::CallerKind;
use crate::trail::incident::kinds::Whom;
use std::rc::Rc;

/// The subject of an incident of the watch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A key, with its project.
    Key(KeyRef),
    /// A caller, by its kind and name.
    Caller(CallerKind, Rc<str>),
}

impl Subject {
    /// The same, as an incident names it.
    pub fn whom(&self) -> Whom<'_> {
        match self {
            Subject::Key(key) => Whom::Key(*key),
            Subject::Caller(kind, name) => Whom::Caller(*kind, name),
        }
    }
}
