//! Why there is no reply from somebody who could have given one.

use bincode::{Decode, Encode};
use flotilla_model::name::Name;

use crate::api::error::BrokerError;

/// Most bytes of a name in an error: a client may leave many of those untaken.
const SHOWN_BYTES_MAX: usize = 256;

/// Why somebody who could have replied will not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Absence {
    /// There is nobody, and nobody took the request.
    Nobody,
    /// Whoever took it is gone, or the reply.
    Lost,
    /// Whoever is there has no room for it.
    Busy,
}

impl Absence {
    /// Which of two reasons counts. That the request may have been carried out is never kept back.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Lost, _) | (_, Self::Lost) => Self::Lost,
            (Self::Busy, _) | (_, Self::Busy) => Self::Busy,
            (Self::Nobody, Self::Nobody) => Self::Nobody,
        }
    }

    /// What whoever asked is told.
    pub fn error(self, name: &Name) -> BrokerError {
        let name = shown(name);
        match self {
            Self::Nobody => BrokerError::NoResponder { name },
            Self::Lost => BrokerError::ResponderLost { name },
            Self::Busy => BrokerError::Busy {
                what: format!("those who serve {name} have as many requests as they may"),
            },
        }
    }
}

/// A name as errors show it: its end is left out if it is very long.
pub(super) fn shown(name: &Name) -> String {
    let mut text = name.to_string();
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.shrink_to_fit();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_carried_out_is_never_called_busy() {
        let (nobody, lost, busy) = (Absence::Nobody, Absence::Lost, Absence::Busy);
        for (one, other, counts) in [
            (nobody, busy, busy),
            (nobody, lost, lost),
            (busy, lost, lost),
        ] {
            assert_eq!(one.and(other), counts);
            assert_eq!(other.and(one), counts);
            assert_eq!(one.and(one), one);
        }
    }

    #[test]
    fn an_error_shows_no_more_of_a_name_than_helps() {
        let name = Name::request(&"ä".repeat(30_000)).expect("a name");
        let shown = shown(&name);
        assert!(shown.len() <= SHOWN_BYTES_MAX + '…'.len_utf8());
        assert!(shown.ends_with("ää…"), "{shown}");
    }
}
