//! Tests of the list of accounts, page by page. Behaviour over HTTP is told by the stories in `tests/e2e`, against the stand-in.

use std::collections::HashMap;
use std::time::Duration;

use broker_domain::{ExternalId, SandboxId};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::Listed;
use super::http::Http;
use super::page::{self, PageIntake};
use super::tally::Tally;
use broker_runtime::clock::Clock;
use broker_runtime::config::ProviderConfig;

#[test]
fn a_path_is_under_the_base_and_the_token_is_not_shown() {
    let config = ProviderConfig {
        url: "https://provider.example/api".parse().unwrap(),
        token: SecretString::from("secret"),
        rate: 2,
        timeout: Duration::from_secs(1),
    };
    let http = Http::new(&config, Clock::system()).unwrap();
    assert_eq!(http.at("/x").unwrap().to_string(), "https://provider.example/api/x");
    assert!(!format!("{http:?}").contains("secret"));
}

/// A list of these pages, and the next that each names.
fn read(pages: &[Value]) -> (Listed, Vec<Option<String>>) {
    let mut intake = empty();
    let next = pages.iter().map(|page| page::read(page.to_string().as_bytes(), &mut intake).unwrap());
    let next = next.collect();
    (whole(intake), next)
}

fn empty() -> PageIntake<Listed> {
    PageIntake { tally: Tally::default(), rows: Listed::default() }
}

fn whole(intake: PageIntake<Listed>) -> Listed {
    intake.rows.counted(intake.tally)
}

fn whole_page(body: &[u8]) -> Listed {
    let mut intake = empty();
    page::read(body, &mut intake).unwrap();
    whole(intake)
}

fn listed(rows: &[Value]) -> Listed {
    read(&[json!({ "results": rows })]).0
}

fn uuid(number: u8) -> String {
    format!("identity/accounts/0192f0c1-2345-7abc-8def-0123456789{number:02x}")
}

fn row(id: &str, number: u8) -> Value {
    json!({ "account_type": "sandbox", "state": "active", "csp_id": id, "id": uuid(number), "name": id })
}

fn with(mut row: Value, field: &str, value: Value) -> Value {
    row[field] = value;
    row
}

fn without(mut row: Value, field: &str) -> Value {
    row.as_object_mut().unwrap().remove(field);
    row
}

fn names(listed: &Listed, id: &str, number: u8) -> bool {
    listed.names(&SandboxId::new(id).unwrap(), &ExternalId::new(uuid(number)).unwrap())
}

/// Everything that is no text.
fn no_texts() -> [Value; 8] {
    [
        json!(null),
        json!(4711),
        json!(1.5),
        json!(true),
        json!([]),
        json!(["a"]),
        json!({}),
        json!({ "a": "b" }),
    ]
}

#[test]
fn whatever_else_is_wrong_with_a_row_the_sandbox_that_it_names_is_there() {
    for field in ["id", "name", "account_type", "state"] {
        for bad in no_texts().into_iter().chain([json!(""), json!("a\u{7}"), json!("x".repeat(600))]) {
            if matches!(field, "account_type" | "state") && bad.as_str().is_some_and(|text| !text.is_empty())
            {
                continue;
            }
            let listed = listed(&[with(row("a", 1), field, bad.clone())]);
            assert!(names(&listed, "a", 1), "{field}: {bad}");
            assert!(listed.accounts.is_empty() && !listed.is_empty(), "{field}: {bad}");
            assert_eq!(
                (listed.tally.unreadable_rows, listed.tally.unidentified, listed.doubt()),
                (1, 0, None),
                "{field}: {bad}"
            );
            assert!(listed.tally.problems[0].contains(field), "{:?}", listed.tally.problems);
        }
        assert!(names(&listed(&[without(row("a", 1), field)]), "a", 1), "without {field}");
    }
}

#[test]
fn a_row_without_a_usable_csp_id_is_known_by_its_account() {
    for bad in no_texts().into_iter().chain([json!(""), json!("a b"), json!("x".repeat(200))]) {
        let one = listed(&[with(row("a", 1), "csp_id", bad.clone())]);
        assert!(one.accounts.is_empty() && names(&one, "a", 1) && !names(&one, "b", 2), "{bad}");
        assert_eq!((one.tally.unidentified, one.doubt()), (0, None), "{bad}");
        let none = listed(&[with(with(row("a", 1), "csp_id", bad.clone()), "id", json!(null))]);
        assert_eq!((none.tally.unidentified, none.tally.unreadable_rows), (1, 1), "{bad}");
        assert!(none.doubt().is_some() && !none.is_empty(), "{bad}");
    }
    assert!(names(&listed(&[without(row("a", 1), "csp_id")]), "a", 1));
}

#[test]
fn what_is_no_object_names_nothing_and_nothing_is_missing_then() {
    for row in [json!(null), json!(7), json!("a"), json!([]), json!(true), json!({})] {
        let listed = listed(std::slice::from_ref(&row));
        assert_eq!(listed.tally.unidentified, 1, "{row}");
        assert!(listed.doubt().is_some() && !listed.is_empty(), "{row}");
    }
    let many = listed(&vec![json!(null); 30]);
    assert_eq!((many.tally.unreadable_rows, many.tally.problems.len(), many.found()), (30, 10, 30));
}

#[test]
fn a_key_that_comes_twice_is_believed_only_if_it_says_the_same_twice() {
    let text = |twice: &str| {
        format!(
            r#"{{"results":[{{"account_type":"sandbox","state":"active","csp_id":"a",{twice},"id":"{}"}}]}}"#,
            uuid(1)
        )
    };
    for (twice, taken) in [(r#""name":"n","name":"n""#, 1), (r#""name":"n","name":"m""#, 0)] {
        let listed = whole_page(text(twice).as_bytes());
        assert_eq!((listed.accounts.len(), names(&listed, "a", 1)), (taken, true), "{twice}");
    }
}

#[test]
fn words_count_in_any_case_and_other_words_are_none_of_our_business() {
    for (account_type, state) in [("Sandbox", "ACTIVE"), (" sandbox ", "active\t")] {
        let row = with(with(row("a", 1), "account_type", json!(account_type)), "state", json!(state));
        assert_eq!(listed(&[row]).accounts.len(), 1, "{account_type} {state}");
    }
    for (field, word) in [("account_type", "person"), ("state", "deleting"), ("state", "inactive")] {
        let listed = listed(&[with(row("a", 1), field, json!(word))]);
        assert!(listed.is_empty() && !names(&listed, "a", 1), "{word}");
        assert_eq!(listed.tally.unreadable_rows, 0, "{word}");
    }
}

#[test]
fn a_time_that_cannot_be_read_keeps_nobody_out() {
    for time in [json!(1_795_873_861), json!("2026-11-28"), json!(1_795_873_861.5), json!(null), json!("")] {
        let listed = listed(&[with(row("a", 1), "created_at", time.clone())]);
        assert_eq!((listed.accounts.len(), listed.tally.unreadable_rows), (1, 0), "{time}");
    }
    for time in [json!(true), json!([]), json!({}), json!("yesterday"), json!(-1), json!(1e300)] {
        let listed = listed(&[with(row("a", 1), "created_at", time.clone())]);
        assert_eq!((listed.accounts.len(), listed.tally.unreadable_rows), (1, 1), "{time}");
    }
}

#[test]
fn of_two_accounts_with_one_id_the_newer_counts_in_any_order_and_of_equals_none() {
    let made = |number, at: &str| with(row("a", number), "created_at", json!(at));
    let (old, new) = (made(1, "2026-11-22T10:00:00+01:00"), made(2, "2026-11-22T09:30:00.5"));
    let same = made(3, "2026-11-22T09:30:00.5Z");
    for rows in [[&old, &new], [&new, &old]] {
        let listed = listed(&rows.map(Clone::clone));
        assert_eq!(listed.accounts.values().next().unwrap().external_id.as_str(), uuid(2));
        assert!(names(&listed, "b", 1), "the other account is there as well");
    }
    for rows in
        [[&same, &new, &old], [&old, &new, &same], [&row("a", 4), &new, &old], [&new, &old, &row("a", 4)]]
    {
        let listed = listed(&rows.map(Clone::clone));
        assert!(listed.accounts.is_empty() && names(&listed, "a", 9));
    }
    assert_eq!(listed(&[new.clone(), new]).accounts.len(), 1, "the same row twice is one");
}

#[test]
fn an_account_that_is_listed_under_another_label_or_spelling_is_there() {
    let listed = listed(&[with(
        row("SEED-1", 1),
        "id",
        json!(uuid(0xab).to_uppercase().replace("IDENTITY/ACCOUNTS", "identity/accounts")),
    )]);
    assert!(names(&listed, "seed-1", 0xab) && !names(&listed, "seed-1", 2));
}

#[test]
fn a_list_that_counts_otherwise_or_shifts_is_doubted() {
    let page = |rows: &[Value], count: Value| json!({ "results": rows, "count": count });
    let doubt = |pages: &[Value]| read(pages).0.doubt();
    let rows: Vec<_> = (0..4).map(|n| row(&format!("s{n}"), n)).collect();
    assert_eq!(doubt(&[page(&rows[..2], json!(4)), page(&rows[2..], json!(4))]), None);
    assert_eq!(doubt(&[page(&rows[..2], json!(2)), page(&rows[2..], json!(2))]), None, "counted by page");
    for none in [json!(null), json!(""), json!("many"), json!(true), json!([])] {
        assert_eq!(doubt(&[page(&rows[..3], none)]), None);
    }
    for three in [json!("3"), json!(" 3 "), json!(3.0)] {
        assert_eq!(doubt(&[page(&rows[..3], three)]), None);
    }
    for other in [json!("4"), json!(4.0), json!(3.5), json!(-3), json!(1e20)] {
        assert!(doubt(&[page(&rows[..3], other.clone())]).is_some(), "{other}");
    }
    let few = doubt(&[page(&rows[..3], json!(4))]).unwrap();
    assert!(few.contains("4 rows and has 3"), "{few}");
    assert!(doubt(&[page(&rows[..2], json!(4)), page(&rows[2..], json!(3))]).is_some(), "it changes");
    assert!(doubt(&[page(&rows, json!(0))]).is_some());
    let shifted = [page(&rows[..2], json!(null)), page(&rows[1..], json!(null))];
    assert!(doubt(&shifted).unwrap().contains("two pages"));
    let person = with(rows[0].clone(), "account_type", json!("person"));
    assert!(
        doubt(&[page(std::slice::from_ref(&person), json!(null)), page(&[person], json!(null))]).is_some()
    );
    assert_eq!(
        doubt(&[page(&[rows[0].clone(), rows[0].clone()], json!(null))]),
        None,
        "doubled, not shifted"
    );
}

#[test]
fn the_last_page_is_the_one_that_names_no_next() {
    let next = |page: Value| read(&[page]).1.remove(0);
    for end in [
        json!({ "results": [] }),
        json!({ "results": [], "next": null }),
        json!({ "results": [], "next": " " }),
    ] {
        assert_eq!(next(end.clone()), None, "{end}");
    }
    assert_eq!(next(json!({ "next": " ?page=2 ", "results": [] })).as_deref(), Some("?page=2"));
}

#[test]
fn what_is_no_page_says_what_it_is() {
    for (body, why) in [
        ("", "begins with \"\""),
        ("<html>", "<html>"),
        ("[]", "no JSON object"),
        ("{}", "no results"),
        (r#"{"results":null}"#, "a list"),
        (r#"{"results":{}}"#, "a list"),
        (r#"{"results":[],"results":[]}"#, "results twice"),
        (r#"{"results":[],"next":"","next":"x"}"#, "next twice"),
        (r#"{"results":[],"next":2}"#, "next is a number"),
        (r#"{"results":[],"next":false}"#, "next is a boolean"),
        (r#"{"results":[],"next":{"href":"x"}}"#, "next is an object"),
        (r#"{"results":[{"csp_id":"a""#, "EOF"),
        (r#"{"results":[]} {}"#, "trailing"),
    ] {
        let told = page::read(body.as_bytes(), &mut empty()).unwrap_err();
        assert!(told.contains(why), "{body}: {told}");
    }
    let listed =
        whole_page(b"\xef\xbb\xbf {\"results\":[{\"csp_id\":\"a\",\"name\":\"\xff\",\"id\":\"x\"}]}");
    assert_eq!(listed.unreadable.len(), 1, "a byte that is no text spoils its row only");
}

#[test]
fn a_row_may_be_as_deep_as_it_likes() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = row("a", 1).to_string().replacen('{', &format!(r#"{{"extra":{deep},"#), 1);
    let listed = whole_page(format!(r#"{{"results":[{text}]}}"#).as_bytes());
    assert_eq!(listed.accounts.len(), 1);
}

/// A row in which each field is as it should be, something else, or not there.
fn any_row() -> impl Strategy<Value = Value> {
    let field = |good: Vec<String>| {
        prop_oneof![
            8 => prop::sample::select(good).prop_map(|text| Some(json!(text))),
            1 => "\\PC{0,8}".prop_map(|text| Some(json!(text))),
            1 => prop::sample::select(no_texts().to_vec()).prop_map(Some),
            1 => Just(None),
        ]
    };
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let times = of(&["2026-11-22T10:00:00Z", "2026-11-22T10:00:00.5+02:00", "2026-11-22T10:00:00"]);
    let fields = (
        field(of(&["sandbox"])),
        field(of(&["active", "deleting"])),
        field(of(&["a", "b", "c"])),
        field(vec![uuid(1), uuid(2), "identity/accounts/1".to_owned()]),
        field(of(&["one", "two"])),
        field(times),
    );
    fields.prop_map(|(account_type, state, csp_id, id, name, created_at)| {
        let named = [
            ("account_type", account_type),
            ("state", state),
            ("csp_id", csp_id),
            ("id", id),
            ("name", name),
            ("created_at", created_at),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

proptest! {
    #[test]
    fn every_row_is_ours_unreadable_unidentified_or_none_of_our_business(row in any_row()) {
        let one = listed(std::slice::from_ref(&row));
        prop_assert!(one.accounts.len() + one.unreadable.len() + one.tally.unidentified as usize <= 1, "{row}");
        for account in one.accounts.values() {
            prop_assert_eq!(&json!(account.id.as_str()), &row["csp_id"]);
            prop_assert_eq!(&json!(account.name.as_str()), &row["name"]);
            prop_assert_eq!(&json!(account.external_id.as_str()), &row["id"]);
        }
        if let Some(id) = row["csp_id"].as_str().and_then(|id| SandboxId::new(id).ok()) {
            let other = |field: &str, word: &str| {
                let text = row[field].as_str().unwrap_or_default();
                !text.contains('\u{fffd}') && !text.trim().is_empty() && text.trim() != word
            };
            let not_ours = other("account_type", "sandbox") || other("state", "active");
            let external_id = ExternalId::new(uuid(9)).unwrap();
            prop_assert_eq!(one.names(&id, &external_id), !not_ours, "{}", row);
            prop_assert_eq!(one.tally.unidentified, 0);
        }
    }

    #[test]
    fn the_order_of_a_list_tells_nothing(rows in prop::collection::vec(any_row(), 0..12)) {
        let reversed: Vec<_> = rows.iter().rev().cloned().collect();
        let (there, back) = (listed(&rows), listed(&reversed));
        let accounts = |listed: &Listed| -> HashMap<_, _> {
            let of = |account: &super::Account| (account.external_id.to_string(), account.created_at);
            listed.accounts.iter().map(|(id, account)| (id.clone(), of(account))).collect()
        };
        prop_assert_eq!(accounts(&there), accounts(&back));
        prop_assert_eq!((there.unreadable, there.tally.unidentified), (back.unreadable, back.tally.unidentified));
    }

    #[test]
    fn no_page_is_too_odd_to_be_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(page::read(&body, &mut empty()));
    }
}
