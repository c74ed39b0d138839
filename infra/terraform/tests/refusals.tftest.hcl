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

run "each_of_these" {
  command = plan
  expect_failures = [
    var.name,
    var.image,
    var.private_subnet_ids,
    var.waf,
    var.drain_s,
    var.settings,
    var.api,
    var.worker,
    var.external_schedule,
    var.paused,
    var.load_balancer,
    var.collector,
    var.warm_throughput,
    var.vpc_cidr_blocks,
    var.private_route_table_ids,
  ]

  variables {
    # a name that sqs or the load balancer would not take
    name = "Broker_1"
    # an image that can change
    image = "registry.example/broker:latest"
    # one subnet only
    private_subnet_ids = ["subnet-1", "subnet-1"]
    # a rate rule that stops a platform
    waf = { requests_per_5_min = 2000 }
    # a drain that fargate cuts short
    drain_s = 100
    # a token in the settings
    settings = { BROKER_TRACK_TOKENS = "a=0123456789abcdef" }
    # one api task
    api = { min_tasks = 1 }
    # workers that scale in faster than out
    worker = { scale_in_cooldown_s = 10 }
    # a job that no worker knows
    external_schedule = { make_coffee = "rate(10 minutes)" }
    # a pause that could not work
    paused      = true
    autoscaling = false
    # a listener that others use without a host
    load_balancer = { listener_arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/shared/1/1", security_group_id = "sg-1", arn_suffix = "app/shared/1", hosts = [] }
    # a collector that can change
    collector = { image = "collector:latest" }
    # less warm throughput than a new table has
    warm_throughput = { write = 1000 }
    # endpoints that would shut out the VPC, and endpoints without routes
    create_vpc_endpoints    = true
    private_route_table_ids = []
  }
}

run "and_each_of_these" {
  command = plan
  expect_failures = [
    var.settings,
    var.external_schedule,
    var.scheduled_scaling,
    var.provider_rate,
    var.job_intervals_s,
    var.otlp_endpoint,
  ]

  variables {
    # what no process would start with
    provider_rate   = 2.5
    job_intervals_s = { sync = 604801 }
    otlp_endpoint   = "http://user:password@collector.internal:4318"
    # a schedule of a service that is not there
    scheduled_scaling = { morning = { service = "console", schedule = "cron(0 8 ? * * *)", min_tasks = 4 } }
    # a setting that the module decides
    settings = { BROKER_TABLE = "other" }
    # a job without a rate
    external_schedule = { sync = "10 minutes" }
  }
}
