//! Tests of start, HTTP and shutdown of the endpoints.

use std::net::{IpAddr, Ipv4Addr};

use broker_runtime::clock::{Clock, http_date};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpStream, time::timeout};

use super::{EndpointError, EndpointOptions, Local, SOON, options};
use crate::endpoints::listen;

#[tokio::test]
async fn both_endpoints_tell_the_time_of_their_answers_also_after_the_clock_was_set_back() {
    let clock = Clock::manual(http_date("Sun, 29 Nov 2026 08:00:00 GMT").unwrap());
    let local = Local::start_with(EndpointOptions { clock: clock.clone(), ..options(None) }).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    for now in
        ["Sun, 29 Nov 2026 08:00:00 GMT", "Sun, 29 Nov 2026 07:00:00 GMT", "Sun, 29 Nov 2026 09:00:00 GMT"]
    {
        clock.set(http_date(now).unwrap());
        for url in [&local.endpoints.sqs_url, &local.endpoints.dynamodb_url] {
            let request = http::Request::post(url.as_str()).body(Full::<Bytes>::default()).unwrap();
            let answer = client.request(request).await.unwrap();
            assert_eq!(answer.headers()[http::header::DATE], now, "{url}: {:?}", answer.headers());
        }
    }
}

#[tokio::test]
async fn accepted_connections_do_not_wait_to_fill_packets() {
    let (listener, address) = listen("SQS", (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    drop(client.unwrap());
    assert!(accepted.unwrap().0.nodelay().unwrap());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Local::start().await;
    let taken: u16 = first.endpoints.dynamodb_url.rsplit(':').next().unwrap().parse().unwrap();
    for wanted in [
        EndpointOptions { dynamodb_port: taken, ..options(None) },
        EndpointOptions { sqs_port: taken, ..options(None) },
    ] {
        let refused = Local::start_with(wanted).await.err().unwrap();
        assert!(matches!(refused, EndpointError::Listen { .. }), "{refused}");
        assert!(refused.to_string().contains(&taken.to_string()), "{refused}");
    }
}

#[tokio::test]
async fn only_loopback_addresses_are_served() {
    let open_to_all = EndpointOptions { host: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..options(None) };
    let refused = Local::start_with(open_to_all).await.err().unwrap();
    assert!(matches!(refused, EndpointError::NotLoopback(_)), "{refused}");
}

#[tokio::test]
async fn shutdown_ends_long_polls_and_frees_the_ports() {
    let local = Local::start().await;
    let queue = local.queue("idle").await;
    let port = local.endpoints.sqs_url.rsplit(':').next().unwrap().parse().unwrap();
    let poll = local.long_poll(&queue).await;

    local.stop().await;
    let ended = timeout(SOON, poll).await.expect("the long poll ends").unwrap();
    assert!(ended.unwrap().messages().is_empty());

    let again = Local::start_with(EndpointOptions { sqs_port: port, ..options(None) }).await.unwrap();
    assert!(again.sqs.list_queues().send().await.unwrap().queue_urls().is_empty(), "queues live in memory");
    again.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_half_a_request() {
    let local = Local::start().await;
    let mut stuck = Vec::new();
    for url in [&local.endpoints.sqs_url, &local.endpoints.dynamodb_url] {
        let peer = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        peer.writable().await.unwrap();
        peer.try_write(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
        stuck.push(peer);
    }
    local.dynamodb.list_tables().send().await.unwrap();
    local.stop().await;
}
