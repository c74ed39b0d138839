# What the module refuses, each with a word why.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  image                    = "registry.example/broker:1.0.0"
  vpc_id                   = "vpc-1"
  private_subnet_ids       = ["subnet-1", "subnet-2"]
  load_balancer_subnet_ids = ["subnet-3", "subnet-4"]
  private_route_table_ids  = ["rtb-1"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
}

run "a_name_that_sqs_or_the_load_balancer_would_not_take" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "Broker_1"
  }
}

run "an_image_that_can_change" {
  command         = plan
  expect_failures = [var.image]

  variables {
    image = "registry.example/broker:latest"
  }
}

run "one_subnet_only" {
  command         = plan
  expect_failures = [var.private_subnet_ids]

  variables {
    private_subnet_ids = ["subnet-1", "subnet-1"]
  }
}

run "a_rate_rule_that_stops_a_platform" {
  command         = plan
  expect_failures = [var.waf]

  variables {
    waf = { requests_per_5_min = 2000 }
  }
}

run "a_drain_that_fargate_cuts_short" {
  command         = plan
  expect_failures = [var.drain_s]

  variables {
    drain_s = 100
  }
}

run "a_token_in_the_settings" {
  command         = plan
  expect_failures = [var.settings]

  variables {
    settings = { BROKER_TRACK_TOKENS = "a=0123456789abcdef" }
  }
}

run "a_setting_that_the_module_decides" {
  command         = plan
  expect_failures = [var.settings]

  variables {
    settings = { BROKER_TABLE = "other" }
  }
}

run "one_api_task" {
  command         = plan
  expect_failures = [var.api]

  variables {
    api = { min_tasks = 1 }
  }
}

run "workers_that_scale_in_faster_than_out" {
  command         = plan
  expect_failures = [var.worker]

  variables {
    worker = { scale_in_cooldown_s = 10 }
  }
}

run "a_job_that_no_worker_knows" {
  command         = plan
  expect_failures = [var.external_schedule]

  variables {
    external_schedule = { make_coffee = "rate(10 minutes)" }
  }
}

run "a_job_without_a_rate" {
  command         = plan
  expect_failures = [var.external_schedule]

  variables {
    external_schedule = { sync = "10 minutes" }
  }
}

run "endpoints_without_routes" {
  command         = plan
  expect_failures = [aws_vpc_endpoint.gateway]

  variables {
    private_route_table_ids = []
  }
}

run "a_pause_that_could_not_work" {
  command         = plan
  expect_failures = [var.paused]

  variables {
    paused      = true
    autoscaling = false
  }
}
