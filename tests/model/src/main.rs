//! `broker-model`: the long search. Exit codes: 0 as promised, 1 not.
//!
//! Every world of [`scenario::full`], [`refill::full`], [`gate::full`], [`reservation::full`] and [`waiting::full`] under the protocol as designed (nothing may break), and every
//! broken variant (each must be found). Run it with `--release`.

use std::process::ExitCode;
use std::time::Duration;

use broker_model::{Variant, gate, refill, reservation, scenario, search, waiting};
use broker_runtime::clock::Clock;

fn main() -> ExitCode {
    let clock = Clock::system();
    let (mut fine, mut states, mut took) = (true, 0, Duration::ZERO);
    for scenario in scenario::full() {
        let found = search(&scenario, &clock);
        println!("{:<60} {:>9} states {:>7.1} s", scenario.name, found.states, found.took.as_secs_f64());
        states += found.states;
        took += found.took;
        fine &= found.something_happened;
        if let Some(path) = found.broken {
            println!("BROKEN:\n  {}", path.join("\n  "));
            fine = false;
        }
    }
    println!("as designed: {states} states, {:.1} s", took.as_secs_f64());
    for variant in Variant::BROKEN {
        let found = scenario::bounded().iter().find_map(|world| {
            let found = search(&world.with(variant), &clock);
            Some((world.name, found.states, found.broken?))
        });
        match found {
            Some((world, states, path)) => {
                println!(
                    "\n{variant:?} is found in \"{world}\" after {states} states:\n  {}",
                    path.join("\n  ")
                );
            }
            None => {
                println!("\n{variant:?} is NOT FOUND");
                fine = false;
            }
        }
    }
    fine &= refill_is_fine(&clock);
    fine &= gate_is_fine(&clock);
    fine &= reservation_is_fine(&clock);
    fine &= waiting_is_fine(&clock);
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refill_is_fine(clock: &Clock) -> bool {
    let mut fine = true;
    for world in refill::full() {
        let found = search(&world, clock);
        println!("{:<60} {:>9} states {:>7.1} s", world.name, found.states, found.took.as_secs_f64());
        fine &= found.something_happened;
        if let Some(path) = found.broken {
            println!("BROKEN:\n  {}", path.join("\n  "));
            fine = false;
        }
    }
    for variant in refill::Variant::BROKEN {
        let mut worlds = refill::bounded().into_iter();
        let path = worlds.find_map(|world| search(&world.with(variant), clock).broken);
        match path {
            Some(path) => println!("\nrefill, {variant:?} is found:\n  {}", path.join("\n  ")),
            None => {
                println!("\nrefill, {variant:?} is NOT FOUND");
                fine = false;
            }
        }
    }
    fine
}

fn gate_is_fine(clock: &Clock) -> bool {
    let mut fine = true;
    for world in gate::full() {
        let found = search(&world, clock);
        println!("{:<60} {:>9} states {:>7.1} s", world.name, found.states, found.took.as_secs_f64());
        fine &= found.something_happened;
        if let Some(path) = found.broken {
            println!("BROKEN:\n  {}", path.join("\n  "));
            fine = false;
        }
    }
    for variant in gate::Variant::BROKEN {
        let mut worlds = gate::bounded().into_iter();
        let path = worlds.find_map(|world| search(&world.with(variant), clock).broken);
        match path {
            Some(path) => println!("\ngate, {variant:?} is found:\n  {}", path.join("\n  ")),
            None => {
                println!("\ngate, {variant:?} is NOT FOUND");
                fine = false;
            }
        }
    }
    fine
}

fn reservation_is_fine(clock: &Clock) -> bool {
    let mut fine = true;
    for world in reservation::full() {
        let found = search(&world, clock);
        println!("{:<60} {:>9} states {:>7.1} s", world.name, found.states, found.took.as_secs_f64());
        fine &= found.something_happened;
        if let Some(path) = found.broken {
            println!("BROKEN:\n  {}", path.join("\n  "));
            fine = false;
        }
    }
    for variant in reservation::Variant::BROKEN {
        let mut worlds = reservation::bounded().into_iter();
        let path = worlds.find_map(|world| search(&world.with(variant), clock).broken);
        match path {
            Some(path) => println!("\nreservation, {variant:?} is found:\n  {}", path.join("\n  ")),
            None => {
                println!("\nreservation, {variant:?} is NOT FOUND");
                fine = false;
            }
        }
    }
    fine
}

fn waiting_is_fine(clock: &Clock) -> bool {
    let mut fine = true;
    for world in waiting::full() {
        let found = search(&world, clock);
        println!("{:<60} {:>9} states {:>7.1} s", world.name, found.states, found.took.as_secs_f64());
        fine &= found.something_happened;
        if let Some(path) = found.broken {
            println!("BROKEN:\n  {}", path.join("\n  "));
            fine = false;
        }
    }
    for variant in waiting::Variant::BROKEN {
        let mut worlds = waiting::bounded().into_iter();
        let path = worlds.find_map(|world| search(&world.with(variant), clock).broken);
        match path {
            Some(path) => println!("\nwaiting, {variant:?} is found:\n  {}", path.join("\n  ")),
            None => {
                println!("\nwaiting, {variant:?} is NOT FOUND");
                fine = false;
            }
        }
    }
    fine
}
