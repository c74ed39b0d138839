//! Operations of reservations.

use serde_json::Value;

use super::headers::LOCATION;
use super::operation::{ADMIN, Components, Operation};
use super::parameters;
use crate::request::reservation::{ReservationBody, ReservationChangeBody};
use crate::response::bodies::{ReservationList, ReservationView};
use crate::response::codes::Code;

pub(super) fn list(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "listReservations", "Lists reservations")
        .says("Those that have ended for a week.")
        .answers::<ReservationList>(200, "The reservations.", &[])
        .finish()
}

pub(super) fn create(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "createReservation", "Reserves sandboxes for a tenant")
        .says(
            "From `from` minus `lead_s` on they are put aside, and the claims of the tenant take them first. What does not fit \
             beside the other reservations into what the policy lets there be of the flavour is refused. Without times it is a \
             floor: what the tenant gives back is put aside again.",
        )
        .needs_body::<ReservationBody>("What is reserved.")
        .answers::<ReservationView>(201, "The reservation.", &[LOCATION])
        .leads_to(201, "getReservation", "id", "id")
        .fails(&[Code::UnknownFlavour, Code::ReservationConflict])
        .finish()
}

pub(super) fn show(parts: &mut Components) -> Value {
    one(parts, "getReservation", "Shows a reservation").finish()
}

pub(super) fn change(parts: &mut Components) -> Value {
    one(parts, "changeReservation", "Changes a reservation")
        .says("Also while it runs. Its tenant and its sandboxes' prefix stay. What is put aside beyond the new count goes back.")
        .needs_body::<ReservationChangeBody>("Its terms from now on.")
        .fails(&[Code::ReservationConflict, Code::ReservationEnded])
        .finish()
}

pub(super) fn delete(parts: &mut Components) -> Value {
    one(parts, "deleteReservation", "Ends a reservation")
        .says("What is put aside goes back within seconds; what is claimed stays with its owners.")
        .finish()
}

fn one<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .takes(parameters::reservation())
        .answers::<ReservationView>(200, "The reservation.", &[])
        .fails(&[Code::ReservationNotFound])
}
