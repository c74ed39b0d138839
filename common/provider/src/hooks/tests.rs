//! The client against a server of its own: what is sent, what comes of answers, and where it does not go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use broker_domain::Timestamp;
use broker_runtime::config::Networks;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn config(secrets: &[&str], networks: &str) -> HooksConfig {
    HooksConfig {
        secrets: secrets.iter().map(|secret| HookSecret::parse(secret).unwrap()).collect(),
        networks: Networks::parse(networks).unwrap(),
    }
}

fn event() -> HookEvent {
    let at = Timestamp::from_ms(1_795_824_000_000);
    HookEvent { id: "check_lab-1_3".to_owned(), kind: HookKind::Check, at, data: json!({ "name": "lab-ä" }) }
}

fn hook(url: &str) -> Hook {
    Hook { url: url.parse().unwrap(), timeout: Duration::from_secs(10) }
}

/// A server that gives one answer to every request; its URL and what it was sent.
async fn server(answer: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/check?x=1", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !is_whole(&read) {
                if socket.read_buf(&mut read).await.unwrap() == 0 {
                    break;
                }
            }
            requests.lock().unwrap().push(String::from_utf8(read).unwrap());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, heard)
}

fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() >= length.parse::<usize>().unwrap()
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

#[test]
fn the_known_vector_has_the_known_signature() {
    // From the tests of the authors' own libraries.
    let secrets = config(&[OLD], "").secrets;
    let body = r#"{"test": 2432232314}"#;
    let signed = signature::sign(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[tokio::test]
async fn what_is_sent_is_signed_with_every_secret_and_the_authors_verifier_accepts_it_with_each() {
    let (url, heard) = server(response("204 No Content", "", "")).await;
    let hooks = Hooks::new(&config(&[OLD, NEW], "127.0.0.1"), Clock::system());
    assert_eq!(hooks.ask(&hook(&url), &event()).await, HookAnswer::Yes { status: 204 });
    let request = heard.lock().unwrap().pop().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /check?x=1 HTTP/1.1\r\n"), "{head}");
    let mut headers = http::HeaderMap::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    assert_eq!(headers["webhook-id"], "check_lab-1_3");
    assert_eq!(headers["content-type"], "application/json");
    for secret in [OLD, NEW] {
        let verifier = standardwebhooks::Webhook::new(secret).unwrap();
        verifier.verify(body.as_bytes(), &headers).unwrap();
        verifier.verify(format!("{body} ").as_bytes(), &headers).unwrap_err();
    }
    let body: Value = serde_json::from_str(body).unwrap();
    let expected =
        json!({ "type": "sandbox.check", "timestamp": "2026-11-28T00:00:00Z", "data": { "name": "lab-ä" } });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn an_answer_is_yes_no_later_or_a_failure_and_nothing_is_followed() {
    let large = "x".repeat(LARGEST_ANSWER + 1);
    let elsewhere = "location: http://127.0.0.1:1/\r\n";
    let no = |reason: &str| HookAnswer::No { status: 422, reason: reason.to_owned() };
    let cases = [
        (response("422 No", "", r#"{"reason":"no\u0007 billing"}"#), no("no billing")),
        (response("422 No", "", &large), no("status 422")),
        (response("200 OK", "", &large), HookAnswer::Yes { status: 200 }),
        (
            response("429 Wait", "retry-after: 7\r\n", ""),
            HookAnswer::Later { again_after: Duration::from_secs(7) },
        ),
        (
            response("307 Moved", elsewhere, ""),
            HookAnswer::Failed {
                status: Some(307),
                problem: "status 307: redirects are not followed".to_owned(),
            },
        ),
        (
            response("500 Oh", "", "down"),
            HookAnswer::Failed { status: Some(500), problem: "status 500: down".to_owned() },
        ),
    ];
    for (response, expected) in cases {
        let (url, heard) = server(response).await;
        let hooks = Hooks::new(&config(&[OLD], "127.0.0.1"), Clock::system());
        assert_eq!(hooks.ask(&hook(&url), &event()).await, expected);
        assert_eq!(heard.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn five_failures_in_a_row_spare_the_hook_a_minute_and_other_hooks_are_called() {
    let (url, heard) = server(response("500 Oh", "", "")).await;
    let (well, _) = server(response("200 OK", "", "")).await;
    let hooks = Hooks::new(&config(&[OLD], "127.0.0.1"), Clock::system());
    for _ in 0..7 {
        hooks.ask(&hook(&url), &event()).await;
    }
    assert_eq!(heard.lock().unwrap().len(), 5);
    assert!(matches!(hooks.ask(&hook(&url), &event()).await, HookAnswer::NotAsked { .. }));
    assert_eq!(hooks.ask(&hook(&well), &event()).await, HookAnswer::Yes { status: 200 });
}

#[tokio::test]
async fn an_address_that_is_not_public_is_called_only_where_the_operator_lists_it() {
    let (url, heard) = server(response("200 OK", "", "")).await;
    let port = url.rsplit(':').next().unwrap();
    let asked = async |networks: &str, url: &str| {
        let hooks = Hooks::new(&config(&[OLD], networks), Clock::system());
        hooks.ask(&hook(url), &event()).await
    };
    // The last of them is resolved only when it is connected to.
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]", "localhost"] {
        let HookAnswer::Failed { problem, .. } = asked("10.0.0.0/8", &format!("http://{host}:{port}")).await
        else {
            panic!("{host} was called");
        };
        assert!(problem.contains("BROKER_HOOK_NETWORKS"), "{host}: {problem}");
    }
    assert!(heard.lock().unwrap().is_empty());
    assert_eq!(
        asked("127.0.0.0/8", &format!("http://localhost:{port}")).await,
        HookAnswer::Yes { status: 200 }
    );
}

#[tokio::test]
async fn nothing_is_sent_unsigned_or_beyond_its_bounds() {
    let (url, heard) = server(response("200 OK", "", "")).await;
    let problem = async |hooks: Hooks, event: HookEvent| {
        let answer = hooks.ask(&hook(&url), &event).await;
        let HookAnswer::Failed { problem, .. } = answer else { panic!("{answer:?}") };
        problem
    };
    let unsigned = Hooks::new(&config(&[], "127.0.0.1"), Clock::system());
    assert!(problem(unsigned, event()).await.contains("BROKER_HOOK_SECRETS"));
    let large = HookEvent { data: json!("x".repeat(LARGEST_REQUEST)), ..event() };
    let hooks = Hooks::new(&config(&[OLD], "127.0.0.1"), Clock::system());
    assert!(problem(hooks.clone(), large).await.contains("bytes"));
    assert!(problem(hooks, HookEvent { id: "a\nb".to_owned(), ..event() }).await.contains("header"));
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_hook_that_does_not_answer_is_left_after_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hooks = Hooks::new(&config(&[OLD], "127.0.0.1"), Clock::system());
    let silent = Hook { timeout: Duration::from_secs(1), ..hook(&url) };
    let answer = hooks.ask(&silent, &event()).await;
    assert_eq!(answer, HookAnswer::Failed { status: None, problem: "no answer within 1 s".to_owned() });
}
