//! Environments of operators' shells: settings for other tools, and credentials from a slow program.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use broker_tests::binaries::binaries;
use broker_tests::endpoint::Urls;
use broker_tests::{Fault, FaultProxy, Rule, Setup, Up, endpoint, story, warden};

/// Settings for other tools, which endpoints on this machine must not take.
const OF_OTHER_TOOLS: [(&str, &str); 6] = [
    ("HTTP_PROXY", "http://127.0.0.1:9"),
    ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ("AWS_RETRY_MODE", "legacy"),
    ("AWS_MAX_ATTEMPTS", "many"),
    ("AWS_USE_FIPS_ENDPOINT", "true"),
    ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
];

#[tokio::test]
async fn broker_up_takes_nothing_from_a_shell_that_is_set_up_for_other_tools() {
    let mut command = Command::new(&binaries().broker);
    endpoint::clean(&mut command).envs(OF_OTHER_TOOLS);
    let up = Up::start_with(command, &["--pool", "1"]).await;
    up.api().allocate("student-1").send().await.expect_status(201);
    up.stop().await;
}

#[tokio::test]
async fn a_command_for_endpoints_on_this_machine_takes_nothing_from_the_shell() {
    story(Setup::new().apis(0).workers(0).pool(1), async |broker| {
        let told = broker.cli_with(&["pool", "stats"], &OF_OTHER_TOOLS).await;
        assert_eq!(told.code, 0, "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_value_that_the_sdk_would_not_survive_is_named_where_it_holds() {
    for (name, value) in
        [("AWS_RETRY_MODE", "legacy"), ("AWS_MAX_ATTEMPTS", "many"), ("AWS_ENDPOINT_URL", "x")]
    {
        let mut command = Command::new(&binaries().broker);
        endpoint::clean(&mut command)
            .args(["pool", "stats"])
            .env("AWS_REGION", "eu-central-1")
            .env(name, value);
        let output = command.output().expect("the command starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(name), "{said}");
    }
}

#[tokio::test]
async fn credentials_from_a_program_that_is_slower_than_a_call_are_waited_for() {
    let folder = warden::scratch().join("credential-process");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (program, config) = (folder.join("credentials"), folder.join("config"));
    let answer =
        r#"{"Version":1,"AccessKeyId":"slow","SecretAccessKey":"slow","Expiration":"2100-01-01T00:00:00Z"}"#;
    // Longer than one attempt of any call to the table may take.
    std::fs::write(&program, format!("#!/bin/sh\nsleep 2\necho '{answer}'\n")).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let profile =
        format!("[profile okta]\nregion = eu-central-1\ncredential_process = {}\n", program.display());
    std::fs::write(&config, profile).expect("written");
    story(Setup::new().apis(0).workers(0).pool(1), async |broker| {
        let config = config.to_str().expect("UTF-8");
        let vars = [
            ("AWS_ACCESS_KEY_ID", ""),
            ("AWS_SECRET_ACCESS_KEY", ""),
            ("AWS_PROFILE", "okta"),
            ("AWS_CONFIG_FILE", config),
        ];
        let told = broker.cli_with(&["pool", "stats", "--json"], &vars).await;
        assert_eq!(told.code, 0, "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_command_outlasts_what_passes_within_seconds() {
    story(Setup::new().apis(1).workers(1).pool(4), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201).sandbox_id().to_owned();
        let of = |name: &str| broker.vars().into_iter().rfind(|(known, _)| known == name).expect("set").1;
        let urls =
            Urls { dynamodb_url: of("AWS_ENDPOINT_URL_DYNAMODB"), sqs_url: of("AWS_ENDPOINT_URL_SQS") };
        let proxy = FaultProxy::start(&urls, 1).await;
        let through = [
            ("AWS_ENDPOINT_URL_DYNAMODB", proxy.urls().dynamodb_url.as_str()),
            ("AWS_ENDPOINT_URL_SQS", proxy.urls().sqs_url.as_str()),
        ];
        let passing = [
            Fault::Refuse("ExpiredTokenException"),
            Fault::Refuse("AccessDeniedException"),
            Fault::Refuse("UnrecognizedClientException"),
            Fault::Refuse("KMSInvalidStateException"),
            Fault::Throttle,
            Fault::ServerError,
            Fault::Reset,
        ];
        let commands: [&[&str]; 6] = [
            &["pool", "stats"],
            &["pool", "verify"],
            &["queues"],
            &["sandbox", "show", &held],
            &["pool", "pause"],
            &["pool", "resume"],
        ];
        for (turn, fault) in passing.into_iter().enumerate() {
            // More than a process would try, and more than a second's worth of them.
            proxy.add(Rule::new(fault).times(5));
            let command = commands[turn % commands.len()];
            let output = broker.cli_with(command, &through).await;
            assert_eq!(output.code, 0, "{fault:?} to broker {command:?}: {output:#?}");
            proxy.calm();
        }
        // What does not pass is told.
        proxy.add(Rule::new(Fault::Refuse("AccessDeniedException")).on("GetItem").on("BatchGetItem"));
        let output = broker.cli_with(&["sandbox", "show", &held], &through).await;
        assert_eq!(output.code, 1, "{output:#?}");
        assert!(output.stderr.contains("AccessDenied"), "{output:#?}");
    })
    .await;
}

#[tokio::test]
async fn an_init_that_finds_everything_needs_no_right_to_make_it() {
    story(Setup::new().apis(0).workers(0).faults(1), async |broker| {
        let urls = broker.proxy().urls();
        let through = [
            ("AWS_ENDPOINT_URL_DYNAMODB", urls.dynamodb_url.as_str()),
            ("AWS_ENDPOINT_URL_SQS", urls.sqs_url.as_str()),
        ];
        for operation in
            ["CreateTable", "UpdateTable", "UpdateTimeToLive", "CreateQueue", "SetQueueAttributes"]
        {
            broker.proxy().add(Rule::new(Fault::Refuse("AccessDeniedException")).on(operation));
        }
        let told = broker.cli_with(&["init"], &through).await;
        assert_eq!(told.code, 0, "{told:#?}");
        assert_eq!(told.stdout.matches(": is there\n").count(), 5, "{told:#?}");
    })
    .await;
}
