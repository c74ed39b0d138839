//! Meaning of an answer's status, for deletions and for the list.
//!
//! | a deletion is answered | it says |
//! |---|---|
//! | 200, 202, 204 | done; with a web page as body: another server |
//! | 404, 410 | gone, if the URL is known to be the provider's API |
//! | 408, 425, 429, 503; with `Retry-After` any 5xx | later |
//! | 301, 302, 307, 308 | moved: followed once, on the provider's own origin, to the same account |
//! | 401, 407 | the token is not known |
//! | 403 | the token may not, or not this |
//! | 402, 405, 406, 411, 415, 417, 421, 426, 428, 431, 501, 505, 510, 511, other 3xx | not this way, whatever the account |
//! | other 5xx | failed, for this account or for all (`evidence`) |
//! | 400, 409, 412, 422, 423, 424, 451 and what else there is | this account cannot be deleted |
//!
//! `Retry-After` speaks of the provider as a whole only beside a status that does. Beside any other it is when to ask for the
//! same account again.

use http::StatusCode;

/// What an answer to a deletion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfDeletion {
    /// It is done.
    Done,
    /// There is no such account, if this is the API.
    Gone,
    /// Come again.
    Later,
    /// It is at another path.
    Moved,
    /// The token is not known.
    Token,
    /// The token may not do this.
    Forbidden,
    /// Nothing of this kind is done here.
    NotThisWay,
    /// The provider failed, at this account or at all.
    Broken,
    /// This account cannot be deleted.
    ThisOne,
}

/// What an answer to a deletion says.
pub(super) fn of_deletion(status: StatusCode, asks_to_wait: bool) -> OfDeletion {
    match status.as_u16() {
        200 | 202 | 204 => OfDeletion::Done,
        301 | 302 | 307 | 308 => OfDeletion::Moved,
        300..=399 => OfDeletion::NotThisWay,
        408 | 425 | 429 | 503 => OfDeletion::Later,
        500..=599 if asks_to_wait => OfDeletion::Later,
        404 | 410 => OfDeletion::Gone,
        401 | 407 => OfDeletion::Token,
        403 => OfDeletion::Forbidden,
        402 | 405 | 406 | 411 | 415 | 417 | 421 | 426 | 428 | 431 => OfDeletion::NotThisWay,
        501 | 505 | 510 | 511 => OfDeletion::NotThisWay,
        500..=599 => OfDeletion::Broken,
        _ => OfDeletion::ThisOne,
    }
}

/// What an answer to a list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfList {
    /// Here it is.
    Page,
    /// Come again.
    Later,
    /// It is at another path.
    Moved,
    /// The token is not known, or may not.
    Token,
    /// There is no list here.
    NotHere,
    /// The provider failed.
    Broken,
    /// Something else.
    Refused,
}

/// What an answer to a list says.
pub(super) fn of_list(status: StatusCode, asks_to_wait: bool) -> OfList {
    match status.as_u16() {
        200 => OfList::Page,
        301 | 302 | 303 | 307 | 308 => OfList::Moved,
        429 => OfList::Later,
        408 | 425 | 500..=599 if asks_to_wait => OfList::Later,
        401 | 403 | 407 => OfList::Token,
        404 | 405 | 410 | 421 => OfList::NotHere,
        500..=599 => OfList::Broken,
        _ => OfList::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deletion(status: u16) -> OfDeletion {
        of_deletion(StatusCode::from_u16(status).unwrap(), false)
    }

    #[test]
    fn every_status_is_sorted_and_only_what_speaks_of_the_account_counts() {
        for status in 100..=999 {
            let said = deletion(status);
            let speaks = matches!(said, OfDeletion::ThisOne);
            let known = [400, 409, 412, 413, 414, 416, 418, 422, 423, 424, 451];
            if (300..600).contains(&status) && speaks {
                assert!(known.contains(&status) || status < 500, "{status}: {said:?}");
            }
            assert_eq!(said == OfDeletion::Done, [200, 202, 204].contains(&status), "{status}");
            assert_eq!(said == OfDeletion::Gone, [404, 410].contains(&status), "{status}");
            if known.contains(&status) {
                assert_eq!(said, OfDeletion::ThisOne, "{status}");
            }
            if (500..600).contains(&status) || (300..400).contains(&status) {
                assert!(!speaks, "{status}");
            }
        }
        for (status, said) in [
            (401, OfDeletion::Token),
            (403, OfDeletion::Forbidden),
            (429, OfDeletion::Later),
            (503, OfDeletion::Later),
            (301, OfDeletion::Moved),
            (303, OfDeletion::NotThisWay),
            (405, OfDeletion::NotThisWay),
            (500, OfDeletion::Broken),
            (502, OfDeletion::Broken),
        ] {
            assert_eq!(deletion(status), said, "{status}");
        }
    }

    #[test]
    fn a_provider_that_asks_to_wait_is_waited_for_and_a_refusal_that_does_stays_one() {
        for status in 400..600 {
            let of_all = matches!(status, 408 | 425 | 429 | 500..);
            let status = StatusCode::from_u16(status).unwrap();
            let (deletion, list) = (of_deletion(status, true), of_list(status, true));
            assert_eq!(deletion == OfDeletion::Later, of_all, "{status}: {deletion:?}");
            assert_eq!(list == OfList::Later, of_all, "{status}: {list:?}");
            if !of_all {
                assert_eq!(deletion, of_deletion(status, false), "{status}");
                assert_eq!(list, of_list(status, false), "{status}");
            }
        }
        assert_eq!(of_deletion(StatusCode::NO_CONTENT, true), OfDeletion::Done);
        assert_eq!(of_deletion(StatusCode::MOVED_PERMANENTLY, true), OfDeletion::Moved);
        assert_eq!(of_list(StatusCode::OK, true), OfList::Page);
    }
}
