# The module as it is rendered with its defaults: infra/check reads policies, alarms and the scaling rule from this run.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_resource {
  target = module.data.aws_sqs_queue.this["requests"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-requests"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests"
  }
}

override_resource {
  target = module.data.aws_sqs_queue.this["maintenance"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-maintenance"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance"
  }
}

override_resource {
  target = module.data.aws_sqs_queue.dead_letters["requests"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-requests-dlq"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests-dlq"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-requests-dlq"
  }
}

override_resource {
  target = module.data.aws_sqs_queue.dead_letters["maintenance"]
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:broker-maintenance-dlq"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance-dlq"
    id  = "https://sqs.eu-central-1.amazonaws.com/123456789012/broker-maintenance-dlq"
  }
}

variables {
  name                     = "broker"
  image                    = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/broker@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  vpc_id                   = "vpc-1"
  private_subnet_ids       = ["subnet-1", "subnet-2"]
  load_balancer_subnet_ids = ["subnet-3", "subnet-4"]
  private_route_table_ids  = ["rtb-1"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
}

run "paused_keeps_the_data_and_silences_the_alarms" {
  command = plan

  variables {
    paused = true
  }

  assert {
    condition     = output.worker_scaling.max == 0 && output.table_name == "broker"
    error_message = "No task runs; table and queues stay."
  }
}

run "rendered" {
  assert {
    condition     = output.table_name == "broker" && output.prefix == "broker"
    error_message = "Table and prefix must be the name."
  }

  assert {
    condition     = output.worker_scaling.min == 2 && output.worker_scaling.max == 10
    error_message = "2 to 10 workers by default."
  }

  assert {
    condition     = toset(keys(output.queue_urls)) == toset(["requests", "requests-dlq", "maintenance", "maintenance-dlq"])
    error_message = "Four queues."
  }
}
