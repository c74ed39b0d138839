//! Tests of what stands before both endpoints: programs of this machine are answered, pages of a browser are not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Local, SOON};

/// What the endpoint at `url` answers to these bytes, until it closes or is silent for a moment.
async fn answered(url: &str, bytes: &str) -> String {
    let address = url.strip_prefix("http://").expect("an URL");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes.replace("{host}", address).as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it ends").expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

fn list(service: &str, more: &str) -> String {
    let (target, kind) = match service {
        "sqs" => ("AmazonSQS.ListQueues", "1.0"),
        _ => ("DynamoDB_20120810.ListTables", "1.0"),
    };
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/local/x/aws4_request, SignedHeaders=host, Signature=0\r\nX-Amz-Date: 20260101T000000Z\r\n";
    format!(
        "POST / HTTP/1.1\r\n{more}Content-Type: application/x-amz-json-{kind}\r\nX-Amz-Target: {target}\r\n{signed}Content-Length: 2\r\n\r\n{{}}"
    )
}

#[tokio::test]
async fn no_page_reads_or_writes_and_no_other_name_is_served() {
    let local = Local::start().await;
    let (dynamodb, sqs) = local.urls();
    for (service, url) in [("dynamodb", &dynamodb), ("sqs", &sqs)] {
        let program = answered(url, &list(service, "Host: {host}\r\nConnection: close\r\n")).await;
        assert!(program.starts_with("HTTP/1.1 200"), "{service}: {program}");
        for more in [
            "Host: {host}\r\nOrigin: https://evil.example\r\n",
            "Host: {host}\r\nOrigin: null\r\n",
            "Host: {host}\r\nSec-Fetch-Site: cross-site\r\n",
            "Host: evil.example\r\n",
            "Host: {host}\r\nHost: evil.example\r\n",
        ] {
            let page = answered(url, &list(service, more)).await;
            assert!(!page.contains(" 200 ") && !page.contains("llow-origin"), "{service} {more}: {page}");
        }
        let preflight = "OPTIONS / HTTP/1.1\r\nHost: {host}\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n";
        let page = answered(url, preflight).await;
        assert!(page.starts_with("HTTP/1.1 403") && !page.contains("llow-origin"), "{service}: {page}");
        // A page that finds a connection open is no better off.
        let second = [
            list(service, "Host: {host}\r\n"),
            list(service, "Host: {host}\r\nOrigin: https://evil.example\r\n"),
        ];
        let both = answered(url, &second.concat()).await;
        assert!(
            both.matches("HTTP/1.1 200").count() <= 1 && both.contains("HTTP/1.1 403"),
            "{service}: {both}"
        );
    }
    local.stop().await;
}

#[tokio::test]
async fn a_client_of_the_query_protocol_is_told_in_words() {
    let local = Local::start().await;
    let (_, sqs) = local.urls();
    let body = "Action=ListQueues&Version=2012-11-05";
    let length = body.len();
    let old = format!(
        "POST / HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let told = answered(&sqs, &old).await;
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("query protocol"), "{told}");
    local.stop().await;
}

#[tokio::test]
async fn what_has_no_clear_end_is_not_passed_on() {
    let local = Local::start().await;
    let (dynamodb, _) = local.urls();
    for more in ["Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n"] {
        let told = answered(&dynamodb, &list("dynamodb", &format!("Host: {{host}}\r\n{more}"))).await;
        assert!(told.starts_with("HTTP/1.1 403"), "{more}: {told}");
    }
    for length in ["+2", "-1", "0x2", "2, 2", "18446744073709551616", ""] {
        let asked = list("dynamodb", "Host: {host}\r\n");
        let asked = asked.replace("Content-Length: 2", &format!("Content-Length: {length}"));
        let told = answered(&dynamodb, &asked).await;
        assert!(told.starts_with("HTTP/1.1 403"), "{length}: {told}");
    }
    local.stop().await;
}
